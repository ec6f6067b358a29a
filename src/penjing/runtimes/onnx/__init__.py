"""ONNX: files of ONNX Runtime."""
