"""Torch modules as such: what they return, and what they read."""
