"""ONNX graphs: index, table of operators, cost, safety checks, conversion to half precision."""
