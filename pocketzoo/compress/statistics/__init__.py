"""Statistics of layer inputs and outputs over calibration samples."""
