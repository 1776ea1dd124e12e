"""Graphs written anew: branches that lengths settle, conversion to 16 bits."""
