"""What layers read and give, summed over calibration samples."""
