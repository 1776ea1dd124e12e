"""Read what anyone may have written: JSON and TOML within bounds, and texts that may not be UTF-8."""
