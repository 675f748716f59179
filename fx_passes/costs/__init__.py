"""What a way to compute a site costs in onnxruntime: counted, never timed."""
