"""What every room uses: errors, progress, files, names. Nothing here knows what a model is."""
