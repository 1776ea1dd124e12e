"""What runs models on this machine: runtimes and targets."""
