"""Quantization of weights and activations to int8 and fp8."""
