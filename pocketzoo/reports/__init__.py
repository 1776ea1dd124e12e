"""HTML pages and charts of what was measured."""
