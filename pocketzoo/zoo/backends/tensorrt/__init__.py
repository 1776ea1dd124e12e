"""Engines of TensorRT and TensorRT-RTX, and all else that is NVIDIA's."""
