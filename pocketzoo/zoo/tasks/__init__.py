"""What outputs mean: metrics, agreement, text from tokens."""
