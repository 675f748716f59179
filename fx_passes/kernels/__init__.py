"""Facts about the numbers of a weight, without a graph: repeats, diagonal blocks, factors, expansion."""
