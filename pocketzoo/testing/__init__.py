"""The conformance suite that a plugin's author runs: pytest --pyargs pocketzoo.testing --plugin NAME."""
