"""What outputs mean: tasks with their answers, decoders and metrics."""
