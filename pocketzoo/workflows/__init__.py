"""Whole jobs, each one public function."""
