"""LiteRT: files of TensorFlow Lite."""
