"""What plugins declare, and the registry of it."""
