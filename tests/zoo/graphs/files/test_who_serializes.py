"""A graph as one message is made in one place, which knows those that are too large for it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4] / "pocketzoo"
# What makes a message of a whole graph, or has onnx do so.
METHODS = {"SerializeToString", "ByteSize"}
FUNCTIONS = {"save", "save_model", "check_model", "convert_version", "infer_shapes", "inline_local_functions"}
OWNERS = {"onnx", "checker", "version_converter", "shape_inference", "inliner"}
ALLOWED = {  # file -> why what it makes is small
    "zoo/graphs/files/graph_files.py": "the one place",
    "zoo/graphs/files/external_tensors.py": "the weights of its graph lie in other files",
    "zoo/graphs/contents.py": "one tensor",
    "zoo/graphs/shape_inference.py": "its graphs come without weights",
    "compress/pipeline/acceptance.py": "one node, one tensor",
    "compress/quantization/bodies.py": "one tensor",
    "deploy/triton/image_preprocessing_graph.py": "a graph without weights",
    "deploy/triton/table_graph.py": "a graph of a row of numbers",
    "deploy/triton/model_repository.py": "a graph without weights",
    "testing/test_backends.py": "graphs of its own",
    "testing/test_compressors.py": "graphs of its own",
    "testing/test_exporters.py": "graphs of its own",
    "testing/subjects.py": "graphs of its own",
    "testing/test_backbones.py": "graphs of its own",
    "testing/test_targets.py": "graphs of its own",
    "zoo/graphs/cost.py": "functions, which graphs that were opened have none of; weights are only counted",
}
FILES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py"))


def found_in(source: str) -> list[str]:
    """What makes a message, or reads a graph with its weights, called or passed on.

    But to ``changed``, which calls it on what fits.
    """
    tree, names = ast.parse(source), list[str]()
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    passed = {id(inside) for node in calls if getattr(node.func, "id", "") == "changed" for inside in ast.walk(node)}
    names += [
        "load"
        for node in calls
        if ast.unparse(node.func) == "onnx.load" and "load_external_data=False" not in ast.unparse(node)
    ]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or id(node) in passed:
            continue
        owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        if node.attr in METHODS or (node.attr in FUNCTIONS and owner in OWNERS):
            names.append(node.attr)
    return names


@pytest.mark.parametrize("name", FILES)
def test_only_one_place_makes_a_message_of_a_whole_graph(name):
    assert bool(found_in((ROOT / name).read_text("utf8"))) == (name in ALLOWED)


def test_each_way_to_make_one_is_found():
    calls = ["onnx.save(m, p)", "m.SerializeToString()", "sum(m.ByteSize())", "onnx.checker.check_model(m)"]
    assert [len(found_in(call)) for call in (*calls, "onnx.load(p)")] == [1, 1, 1, 1, 1]
    assert found_in("onnx.load(p, load_external_data=False)") == []
    assert found_in("changed(m, partial(version_converter.convert_version, target_version=3))") == []
    assert found_in("zip_file.save(p)") == []
