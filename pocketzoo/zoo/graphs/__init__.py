"""ONNX graphs: shapes, cost, index, safety checks, conversion to half precision."""
