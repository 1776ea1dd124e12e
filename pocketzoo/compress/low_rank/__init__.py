"""Factorize the weights of layers."""
