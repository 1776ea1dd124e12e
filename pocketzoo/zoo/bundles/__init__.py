"""A model on disk: manifest, files, model card, signatures."""
