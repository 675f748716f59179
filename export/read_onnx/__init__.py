"""ONNX files: what they hold, and their graph as an FX graph in which convolutions can be found."""
