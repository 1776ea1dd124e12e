"""The onnxruntime back end."""
