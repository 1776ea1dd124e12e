"""Measurements as bundles carry them, read for the page."""
