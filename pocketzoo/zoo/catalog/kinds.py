"""The kinds of registered specs; a file of its own, so that the command line need not load plugins."""

KINDS = ("backbone", "head", "compressor", "exporter", "target", "dataset", "loader")
