"""Metrics: each once, added up over batches, with confidence intervals."""
