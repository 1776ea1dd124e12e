"""Whole workflows, each one public function."""
