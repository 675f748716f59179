"""onnxruntime: sessions, arrays, and timing in turns."""
