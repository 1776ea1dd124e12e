"""Bundles as they were written once, opened as they must be for good: same graphs, same answers. See tools/freeze.py.

What no processor has a say in is compared as it is: files, tokens, classes, digests of graphs that saved plans give.
Arrays of floats may differ by a millionth of their largest value, since kernels add in another order; those of integer
kernels by what a step or two of their grid amounts to, as some round where others saturate.
"""

from __future__ import annotations

import socket
from dataclasses import replace

import numpy as np
import pytest
from frozenbundles import FROZEN, answers, cases, graph_digest, is_part_of, load_golden, stored_manifest
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.early_format_2 import converted
from pocketzoo.zoo.bundles.manifest import FORMAT, Manifest

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
FLOATS, INTEGERS = 1e-6, 0.05  # of the largest value
KINDS = ("agent", "compressed", "foreign", "gpt2", "image-classifier", "regression", "t5", "text-encoder")
CASES = cases()


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """Nobody is at home, and nobody can be asked: all there is is the bundle."""

    def refuse(*_: object) -> None:
        raise AssertionError("it asked the network")

    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path / "home"


def test_every_kind_of_bundle_is_frozen_in_every_format():
    wanted = [f"format{number}/{kind}" for number in range(1, FORMAT + 1) for kind in KINDS]
    assert wanted == CASES


@pytest.mark.parametrize("case", CASES)
def test_it_answers_as_it_did(case, alone):
    golden, arrays = load_golden(FROZEN / case)
    given = {"x": arrays.pop("x")} if "x" in arrays else {}
    facts, found = answers(FROZEN / case, golden["asks"], given)
    scores, old = facts.pop("scores", None), golden["answers"].pop("scores", None)
    assert facts == golden["answers"]
    if scores is not None:
        scores.pop("unit", None)  # said since then
    assert _rounded(scores) == _rounded(old)
    assert set(found) == set(arrays)
    for name, array in found.items():
        wanted = arrays[name]
        assert (array.shape, array.dtype) == (wanted.shape, wanted.dtype), name
        integers = name.startswith("predict ") and name != "predict float"
        allowed = (INTEGERS if integers else FLOATS) * float(np.abs(wanted).max())
        assert float(np.abs(array - wanted).max()) <= allowed, name
    if "source" not in golden["asks"]:  # which is made into a bundle at home
        assert not list(alone.rglob("*"))


@pytest.mark.parametrize("case", CASES)
def test_its_manifest_is_read_whole_and_written_alike(case):
    manifest = read_bundle(FROZEN / case / "bundle").manifest
    written = to_plain(manifest)
    stored = dict(converted(stored_manifest(FROZEN / case)))
    assert is_part_of(stored.pop("processor")["config"], written["processor"]["config"]), "it had no name at first"
    assert is_part_of(stored, written) or not case.startswith(f"format{FORMAT}/")
    assert from_plain(Manifest, written) == manifest
    assert to_plain(replace(manifest, name="other")) != written


@pytest.mark.parametrize("case", CASES)
def test_nothing_in_it_is_of_the_machine_that_made_it(case):
    for path in (FROZEN / case).rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for place in (b"/tmp/", b"/home/", b"/root/", b"localhost", b"127.0.0.1"):
                assert place not in data, path


def _rounded(value):
    """Scores to six digits."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _tiny(op="Add", constant=1.0, name="c", alpha=None):
    value = numpy_helper.from_array(np.float32([constant]), name)
    node = helper.make_node(op, ["x", name], ["y"], **({} if alpha is None else {"alpha": alpha}))
    entry, end = (helper.make_tensor_value_info(each, TensorProto.FLOAT, ["n"]) for each in "xy")
    return helper.make_model(helper.make_graph([node], "g", [entry], [end], [value]))


def test_a_digest_is_of_all_that_a_graph_computes():
    base = graph_digest(_tiny())
    others = [_tiny("Mul"), _tiny(constant=2.0), _tiny(name="d"), _tiny(alpha=0.5), _tiny(alpha=0.25)]
    assert len({base, *map(graph_digest, others)}) == 6
    same = _tiny()
    same.producer_name, same.doc_string = "somebody", "something"
    assert graph_digest(same) == base
