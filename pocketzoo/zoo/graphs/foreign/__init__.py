"""ONNX files of anyone: what is said of them besides, inputs that are given once, samples that are run one by one."""
