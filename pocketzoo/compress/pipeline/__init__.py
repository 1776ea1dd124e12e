"""Run the steps of a recipe on a bundle and measure each."""
