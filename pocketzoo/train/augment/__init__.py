"""Random changes of samples."""
