"""Pruning of channels and of single weights."""
