"""Measurements stored in bundles, read for the reports."""
