"""The kinds of things that can be registered; apart, so that the command line knows them without loading plugins."""

KINDS = ("backbone", "head", "compressor", "exporter", "target", "dataset", "loader")
