"""On the device: run a bundle, pack it, examine the environment."""
