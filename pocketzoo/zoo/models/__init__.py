"""Models: built, opened, pulled, exported to a graph, saved, pushed."""
