"""What plugins declare: hooks, specs, and the registry."""
