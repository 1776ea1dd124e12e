"""The halves of tasks that only fit needs: losses."""
