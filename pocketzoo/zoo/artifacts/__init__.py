"""What a bundle runs: its graphs by name, and the drivers that run them together."""
