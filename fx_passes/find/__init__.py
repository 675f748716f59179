"""Which convolutions repeat one kernel, and for each of the others why it does not."""
