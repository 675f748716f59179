"""A torch graph -> an ONNX file."""
