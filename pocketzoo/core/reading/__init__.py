"""Read what anyone may have written: JSON and TOML within bounds, texts that may not be UTF-8, the environment."""
