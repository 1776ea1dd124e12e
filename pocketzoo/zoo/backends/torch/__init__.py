"""The torch back end: modules as they are, compiled, or on a GPU."""
