"""Train a compressed model to give what the original gives."""
