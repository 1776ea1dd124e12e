"""The version of pocketzoo, below everything that records or compares it."""

__version__ = "0.1.0"
