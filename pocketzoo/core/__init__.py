"""Utilities without any knowledge of models: errors, progress, files, names."""
