"""Decoders: outputs of models to answers."""
