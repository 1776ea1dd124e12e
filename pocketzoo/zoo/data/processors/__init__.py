"""Processors: what a person has as the named inputs of a model."""
