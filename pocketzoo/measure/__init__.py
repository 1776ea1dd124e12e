"""Quality, latency and memory of models, measured."""
