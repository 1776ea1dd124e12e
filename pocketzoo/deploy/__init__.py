"""Deployment: export, checks against targets, Triton, the device runtime."""
