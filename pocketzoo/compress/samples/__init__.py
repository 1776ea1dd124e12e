"""Samples beyond those that a user gives: made of these, or of what a model tells of what it was trained on."""
