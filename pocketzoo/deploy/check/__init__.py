"""Check a graph against a target before an engine is built."""
