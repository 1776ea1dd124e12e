"""The TensorRT and TensorRT-RTX back end, and everything else specific to NVIDIA."""
