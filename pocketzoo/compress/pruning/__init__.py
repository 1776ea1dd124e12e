"""Remove channels or single weights."""
