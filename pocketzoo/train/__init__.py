"""Training: fit a head, or fine-tune a backbone, on the user's data."""
