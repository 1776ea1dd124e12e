"""Models: build, open, pull, export to a graph, save, push."""
