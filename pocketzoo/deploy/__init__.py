"""From bundle to device: engines, runners, measurements, reports."""
