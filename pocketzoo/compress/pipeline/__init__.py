"""Run the steps of a recipe on a bundle, each measured."""
