"""ONNX graphs as such: shapes, costs, who reads what, what is unsafe in them."""
