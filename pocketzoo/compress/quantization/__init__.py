"""Weights and activations in int8 and fp8."""
