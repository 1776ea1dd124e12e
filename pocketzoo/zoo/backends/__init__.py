"""Back ends: the runtimes and targets of this machine."""
