"""Graphs that refer to more than themselves: refused when a bundle or an ONNX file is opened, before anything runs."""

from __future__ import annotations

import os
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.core.errors import TooLargeError, UnsafeFileError
from pocketzoo.workflows.predict import predict
from pocketzoo.zoo.bundles.bundle import read_bundle, updating
from pocketzoo.zoo.graphs.files.load_graph import load_graph
from pocketzoo.zoo.graphs.safety import check_graph, references
from pocketzoo.zoo.models.import_onnx import open_graph

W = np.arange(6, dtype=np.float32).reshape(3, 2)


def external(location: str, name: str = "W") -> onnx.TensorProto:
    tensor = numpy_helper.from_array(W, name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(W.nbytes)}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def model(*nodes: onnx.NodeProto, weights: tuple[onnx.TensorProto, ...] = (), functions=()) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("MatMul", ["x", "W"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        list(weights),
    )
    domains = {"": 20, "evil": 1, "com.microsoft": 1, "local": 1}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))


PLAIN = model(helper.make_node("MatMul", ["x", "W"], ["y"]), weights=(numpy_helper.from_array(W, "W"),))
LOCAL = helper.make_function(
    "local", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 20)]
)


def branch(*nodes: onnx.NodeProto, weights: tuple[onnx.TensorProto, ...] = ()) -> onnx.NodeProto:
    """An If whose branches hold the nodes."""
    inside = helper.make_graph(
        list(nodes), "b", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)], list(weights)
    )
    return helper.make_node("If", ["c"], ["y"], then_branch=inside, else_branch=inside)


EVIL = helper.make_node("Run", ["x"], ["z"], domain="evil")
HOSTILE = {
    "weights in another file": (model(weights=(external("weights.bin"),)), "'weights.bin', another file"),
    "weights at an absolute path": (model(weights=(external("/etc/passwd"),)), "'/etc/passwd', an absolute path"),
    "weights at a path of Windows": (model(weights=(external("C:\\w.bin"),)), "an absolute path"),
    "weights at a path that climbs": (model(weights=(external("../../w.bin"),)), "a path outside the folder"),
    "weights at a path that climbs in between": (
        model(weights=(external("a/../../w.bin"),)),
        "a path outside the folder",
    ),
    "weights in memory": (model(weights=(external("*/_ORT_MEM_ADDR_/*"),)), "another file"),
    "weights in a constant": (
        model(helper.make_node("Constant", [], ["y"], value=external("../w.bin"))),
        "a path outside the folder",
    ),
    "weights in a branch": (model(branch(weights=(external("/w.bin", "z"),))), "an absolute path"),
    "an operator from elsewhere": (model(EVIL), "the operator evil.Run"),
    "an operator from elsewhere in a branch": (model(branch(EVIL)), "the operator evil.Run"),
    "an operator from elsewhere in a function": (
        model(
            helper.make_node("Wrap", ["x"], ["y"], domain="local"),
            functions=[helper.make_function("local", "Wrap", ["x"], ["z"], [EVIL], [helper.make_opsetid("evil", 1)])],
        ),
        "the operator evil.Run",
    ),
}


@pytest.fixture(params=HOSTILE)
def hostile(request) -> tuple[bytes, str]:
    made, says = HOSTILE[request.param]
    return made.SerializeToString(), says


def test_a_bundle_with_a_graph_that_refers_elsewhere(hostile, fitted_copy, refused):
    """Sealed anew, so that every digest is right: somebody made it so."""
    data, says = hostile
    with updating(fitted_copy) as draft:
        (draft.folder / "model.onnx").write_bytes(data)
    with refused(UnsafeFileError, "model.onnx", says):
        read_bundle(fitted_copy.path)
    with refused(UnsafeFileError, "model.onnx", says):
        predict(fitted_copy.path, ["x.png"])


def test_an_onnx_file_that_refers_elsewhere(hostile, tmp_path, refused):
    data, says = hostile
    (tmp_path / "theirs.onnx").write_bytes(data)
    with refused(UnsafeFileError, "theirs.onnx", says):
        open_graph(tmp_path / "theirs.onnx")


def test_a_hard_link_in_a_bundle(fitted_copy, tmp_path, refused):
    os.link(fitted_copy.path / "model.onnx", tmp_path / "elsewhere")
    with refused(UnsafeFileError, "model.onnx is a hard link", hint="copy the bundle"):
        read_bundle(fitted_copy.path)
    copy = shutil.copytree(fitted_copy.path, tmp_path / "again")
    assert read_bundle(copy).manifest == fitted_copy.manifest


def test_what_harms_nobody_is_read(tmp_path, compressed):
    wanted = {
        "plain": (PLAIN, {("", "MatMul")}),
        "onnxruntime's own": (
            model(helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")),
            {("com.microsoft", "Gelu")},
        ),
        "a function of its own": (
            model(helper.make_node("Double", ["x"], ["y"], domain="local"), functions=[LOCAL]),
            {("", "Add")},
        ),
    }
    for name, (made, operators) in wanted.items():
        onnx.save(made, tmp_path / "g.onnx")
        check_graph(tmp_path / "g.onnx")
        assert references(tmp_path / "g.onnx").operators == operators, name
    for path in compressed.encodings().values():
        nodes = onnx.load(path).graph.node
        assert references(path).operators == {(node.domain, node.op_type) for node in nodes}


def test_weights_in_a_file_that_the_bundle_lists_were_checked(tmp_path):
    onnx.save(model(weights=(external("weights.bin"),)), tmp_path / "g.onnx")
    assert references(tmp_path / "g.onnx").files == {"weights.bin"}
    check_graph(tmp_path / "g.onnx", files={"weights.bin"})


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_what_is_cut_short_is_no_graph(cut, tmp_path, refused):
    (tmp_path / "g.onnx").write_bytes(PLAIN.SerializeToString()[:-cut])
    with refused(UnsafeFileError, "is not an ONNX graph"):
        references(tmp_path / "g.onnx")


@pytest.mark.parametrize("data", [b"", b"no graph at all", b"\x80" * 40, b"\x0b", b"\x3a\xff\xff\xff\xff\x0f"])
def test_what_is_no_graph_is_refused(data, tmp_path, refused):
    (tmp_path / "g.onnx").write_bytes(data)
    with refused(UnsafeFileError, "is not an ONNX graph"):
        references(tmp_path / "g.onnx")


def test_a_graph_nested_without_end_is_refused(tmp_path, refused):
    data = b""
    for _ in range(200):  # node { attribute { g { ... } } }
        for tag in (0x32, 0x2A, 0x0A):
            size, length = len(data), b""
            while size > 127:
                length += bytes([size & 127 | 128])
                size >>= 7
            data = bytes([tag]) + length + bytes([size]) + data
    size = len(data)
    (tmp_path / "g.onnx").write_bytes(b"\x3a" + bytes([size & 127 | 128, size >> 7]) + data)
    with refused(TooLargeError, "nested too deep", hint="POCKETZOO_MAX_NESTING"):
        references(tmp_path / "g.onnx")


def numbered(continued: int, last: int = 1) -> bytes:
    """The version of a model as a number of so many bytes and one more, and then a graph that refers to nothing."""
    return b"\x08" + b"\x80" * continued + bytes([last]) + PLAIN.SerializeToString()


def test_numbers_are_of_64_bits_at_the_most(tmp_path, refused):
    path = tmp_path / "m.onnx"
    for continued in (0, 8, 9):
        path.write_bytes(numbered(continued))
        assert references(path).operators == {("", "MatMul")}
    for continued in (10, 11, 300):
        path.write_bytes(numbered(continued, 0))
        with refused(UnsafeFileError, "is not an ONNX graph: a number is too long", hint="rebuild"):
            references(path)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x0b", "a field has the wire type 3"),
        (b"\x0c", "a field has the wire type 4"),
        (b"\x0f", "a field has the wire type 7"),
        (b"\x3a\x02\x00", "it is cut short"),
        (b"\x09\x00\x00\x00\x00\x00\x00\x00", "it is cut short"),
        (b"\x0d\x00\x00\x00", "it is cut short"),
    ],
)
def test_what_is_wrong_with_the_bytes_is_said(data, why, tmp_path, refused):
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with refused(UnsafeFileError, why):
        references(path)


def test_fields_that_lead_nowhere_are_skipped_by_their_lengths(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\xc1\x3e" + bytes(8) + b"\xc5\x3e" + bytes(4) + b"\xc2\x3e\x03abc" + PLAIN.SerializeToString())
    assert references(path).operators == {("", "MatMul")}
    assert references(path).files == frozenset()


@pytest.mark.parametrize(
    ("location", "what"),
    [
        ("/etc/passwd", "an absolute path"),
        ("\\\\host\\share", "an absolute path"),
        ("C:\\weights", "an absolute path"),
        ("c:weights", "an absolute path"),
        ("weights.bin", "another file"),
        ("a/weights.bin", "another file"),
        ("../weights.bin", "a path outside the folder"),
        ("a/../../weights.bin", "a path outside the folder"),
        ("a\\..\\weights.bin", "a path outside the folder"),
        ("/a/../b", "a path outside the folder"),
        ("..weights", "another file"),
    ],
)
def test_what_kind_of_file_holds_the_weights_is_said(location, what, tmp_path, refused):
    path = tmp_path / "m.onnx"
    path.write_bytes(model(weights=(external(location),)).SerializeToString())
    with refused(UnsafeFileError, f"keeps weights in {location!r}, {what}", hint="as one file"):
        check_graph(path)
    check_graph(path, files=[location])


@pytest.mark.parametrize("domain", ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"])
def test_operators_of_the_standard_and_of_onnxruntime_are_known(domain, tmp_path, refused):
    path = tmp_path / "m.onnx"
    path.write_bytes(model(helper.make_node("Gelu", ["x"], ["y"], domain=domain)).SerializeToString())
    check_graph(path)
    with refused(UnsafeFileError, "needs the operator", "Gelu, which is not standard", hint="standard operators"):
        check_graph(path, domains=["other"])


CODE = ("EPContext", "PythonOp", "PythonOpGrad", "ATen", "ExternalOp", "Tokenizer", "BeamSearch", "Odd", "gelu", "")


@pytest.mark.parametrize("name", CODE)
@pytest.mark.parametrize("place", ["graph", "branch", "function", "a function of its name"])
def test_of_onnxruntimes_own_operators_those_that_are_arithmetic_are_known(name, place, tmp_path, refused):
    """Also where the file defines one of this name itself: which of the two would run is not for it to say."""
    node = helper.make_node(name, ["x"], ["z"], domain="com.microsoft")
    opsets = [helper.make_opsetid("com.microsoft", 1)]
    called = {"function": ("local", "Wrap", node), "a function of its name": ("com.microsoft", name, EVIL)}
    functions = ()
    if place in called:
        domain, called_so, inside = called[place]
        inside = inside if place == "function" else helper.make_node("Neg", ["x"], ["z"])
        functions = (helper.make_function(domain, called_so, ["x"], ["z"], [inside], opsets),)
        node = helper.make_node(called_so, ["x"], ["y"], domain=domain)
    node = branch(node) if place == "branch" else node
    (tmp_path / "m.onnx").write_bytes(model(node, functions=functions).SerializeToString())
    for opened in (check_graph, open_graph, load_graph):
        with refused(UnsafeFileError, f"needs the operator com.microsoft.{name}", "known to run no foreign code"):
            opened(tmp_path / "m.onnx")


def test_bytes_that_were_read_are_not_read_again(tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"])
    ends = [[helper.make_tensor_value_info(name, 1, ["n", 4])] for name in "xy"]
    path = tmp_path / "a.onnx"
    onnx.save(helper.make_model(helper.make_graph([node], "g", *ends)), path)
    first = references(path, "of these bytes")
    assert first.operators == {("", "Relu")}
    (tmp_path / "b.onnx").write_bytes(b"no graph")
    assert references(tmp_path / "b.onnx", "of these bytes") is first
    with pytest.raises(UnsafeFileError):
        references(tmp_path / "b.onnx")
    with pytest.raises(UnsafeFileError):  # what is refused is read each time
        references(tmp_path / "b.onnx", "of others")
    with pytest.raises(UnsafeFileError):
        references(tmp_path / "b.onnx", "of others")
