"""What onnxruntime does for one way to compute a site: counted, never timed."""
