"""Facts about the weights of convolutions: where they come from, and whether they repeat."""
