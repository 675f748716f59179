"""Facts about a graph of torch.fx, and edits of it; nothing here knows of shared kernels."""
