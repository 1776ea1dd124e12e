"""Meaning of outputs: metrics, agreement, text from tokens."""
