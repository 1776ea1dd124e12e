"""Data sets: readers, preprocessing, batches."""
