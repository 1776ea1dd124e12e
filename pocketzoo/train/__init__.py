"""Fit a head to data on a pretrained backbone."""
