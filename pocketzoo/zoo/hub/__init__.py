"""The Hub: references, repositories, the store, weights, the lock file."""
