"""Which lowerings are fastest where the graph runs: first each site by itself, then the whole graph."""
