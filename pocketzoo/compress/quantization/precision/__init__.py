"""Which layers of a quantized graph stay in float because that is faster."""
