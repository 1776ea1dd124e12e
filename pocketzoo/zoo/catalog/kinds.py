"""The kinds of registered specs; a file of its own, so that the command line need not load plugins."""

KINDS = (
    "backbone",
    "head",
    "task",
    "decoder",
    "processor",
    "compressor",
    "exporter",
    "target",
    "backend",
    "dataset",
    "loader",
)
