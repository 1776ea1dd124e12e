"""Bundles, models on disk: manifest, files, model card, signatures."""
