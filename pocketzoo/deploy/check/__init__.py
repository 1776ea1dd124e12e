"""What a target refuses of a graph."""
