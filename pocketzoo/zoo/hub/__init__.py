"""Repositories of the Hub, their files in the store, weights, the lock file."""
