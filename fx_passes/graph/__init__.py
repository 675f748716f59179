"""Facts about a graph of torch.fx, and edits of it. Nothing here knows of shared kernels."""
