"""Peers get the same samples, are scored by one rule, and never vanish from the table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path[:0] = [str(FOLDER), str(FOLDER / "peers")]

import peers  # noqa: E402
from common import Samples  # noqa: E402
from int8 import agreement_under_noise  # noqa: E402
from page_peers import CPU, ORT, render, render_int8  # noqa: E402
from peers_scores import score  # noqa: E402


def test_texts_come_alone_and_without_padding(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.array([[5, 6, 7, 0], [8, 0, 0, 0]]))
    samples = Samples(tmp_path / "ids.npy")
    assert [batch.tolist() for batch in samples] == [[[5, 6, 7]], [[8]]]
    assert len(list(samples)) == len(samples) == 2, "a second pass finds nothing"


def test_images_come_in_batches_all_of_them(tmp_path: Path) -> None:
    images = np.arange(10, dtype=np.float32).reshape(5, 2)
    np.save(tmp_path / "x.npy", images)
    batches = list(Samples(tmp_path / "x.npy", size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert np.array_equal(np.concatenate(batches), images)


def test_more_images_than_there_are_come_again(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(3, dtype=np.float32))
    samples = Samples(tmp_path / "x.npy", size=2, count=7)
    assert [batch.tolist() for batch in samples] == [[0, 1], [2, 0], [1, 2], [0]]
    assert len(samples) == 4


@pytest.mark.parametrize(("model", "kept"), [("efficientnet-lite0", "agreement"), ("minilm", "neighbours")])
def test_answers_a_tenth_too_small_are_at_twenty_decibels(tmp_path: Path, model: str, kept: str) -> None:
    """The noise is 1% of the signal's energy, and neither the largest answer nor any direction changes."""
    folder = tmp_path / model
    folder.mkdir()
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    np.save(folder / "test.npy", x)
    np.save(folder / "test_reference.npy", x)
    np.save(folder / "test_groups.npy", np.arange(16) // 2)
    row = score(_scaling(tmp_path / "m.onnx", 0.9), folder)
    assert row["sqnr"] == pytest.approx(20.0, abs=1e-3)
    assert row["sqnr_interval"] == pytest.approx((20.0, 20.0), abs=1e-3), "each source is at as many"
    assert (row[kept], row[f"{kept}_interval"], row["kept"]) == (1.0, (1.0, 1.0), "1" * 16)
    assert row["test_sources"] == 8
    assert score(_scaling(tmp_path / "same.onnx", 1.0), folder)["sqnr"] is None


def test_answers_turned_round_agree_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "efficientnet-lite0"
    folder.mkdir()
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    np.save(folder / "test.npy", x)
    np.save(folder / "test_reference.npy", x)
    np.save(folder / "test_groups.npy", np.arange(16))
    assert score(_scaling(tmp_path / "m.onnx", -1.0), folder)["agreement"] == 0.0


def test_tool_that_cannot_be_installed_is_a_row_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setitem(peers.TOOLS, "nncf", ("nosuchpeer==1",))
    row = next(row for row in peers.rows() if row.tool == "nncf")
    made = peers.make(row, "", tmp_path, tmp_path / "out.onnx")
    assert "No matching distribution found for nosuchpeer==1" in made["failed"]
    page = render(_result({"name": row.name, "tool": "nncf", **made}))
    assert "| NNCF | failed | - |" in page
    assert "nosuchpeer==1" in page


def test_tool_that_fails_says_its_last_word(tmp_path: Path) -> None:
    with pytest.raises(peers.PeerError, match="ValueError: no such range"):
        peers.run([sys.executable, "-c", "raise ValueError('no such range')"])


def test_bar_that_is_not_met_says_so() -> None:
    row = {**_row(CPU), "sqnr": 24.0, "kept": "0011", "latency": {"ms": 1.0, "ratio": 2.0}}
    theirs = {**_row(ORT), "sqnr": 20.0, "kept": "1110", "latency": {"ms": 1.0, "ratio": 1.9}}
    page = render(_result(row, theirs))
    assert "int8 for cpu: SQNR above onnxruntime's static graph | 5 dB | +4.0 dB | **no** |" in page
    assert "int8 for cpu: latency over onnxruntime's static graph | 0.93 | 0.95 | **no** |" in page
    assert "| MiniLM, int8 for cpu: cosine | 0.998 | failed | **no** |" in page


@pytest.mark.parametrize(("kept", "told"), [("1110", "+0.000 to +0.000 | yes"), ("0000", "-1.000 to -0.500 | **no**")])
def test_agreement_is_compared_in_pairs_over_sources(kept: str, told: str) -> None:
    """Two sources of two samples: the rival's 1110 less 0000 is 1 of one and 1/2 of the other."""
    page = render(_result({**_row(CPU), "kept": kept}, {**_row(ORT), "kept": "1110"}))
    assert f"agreement less onnxruntime's, paired | not below 0 | {told} |" in page


@pytest.mark.parametrize(
    ("peak", "told"), [(104.0, "+4.0% | yes"), (106.0, "+6.0% | **no**"), (90.0, "-10.0% | **no**")]
)
def test_memory_that_grows_with_the_samples_misses_its_bar(peak: float, told: str) -> None:
    result = _result({**_row(CPU), "peak_mb": 100.0}) | {"many": 4096, "noise": {"25": 0.97}}
    result["models"]["efficientnet-lite0"].append({**_row(f"{CPU}, 4,096 samples"), "peak_mb": peak})
    page = render_int8(result)
    assert f"peak memory with 4,096 samples over that with 1 | within 5% | {told} |" in page


def test_noise_takes_answers_as_often_as_it_turns_them_round() -> None:
    """Two answers 2 apart, noise of standard deviation 1 on each: P(N(0, 2) > 2) = 0.0786."""
    logits = np.tile([1.0, -1.0], (20000, 1))
    assert agreement_under_noise(logits, 0.0) == pytest.approx(1 - 0.0786, abs=0.003)
    assert agreement_under_noise(logits, 60.0) == 1.0


def test_every_row_has_its_own_name_and_script() -> None:
    found = peers.rows()
    assert len({(row.model, row.name) for row in found}) == len(found)
    for row in found:
        assert (FOLDER / "peers" / f"{row.script}.py").is_file()
        assert not row.tool or row.tool in peers.TOOLS
        assert not row.equals or row.equals in [other.name for other in found[: found.index(row)]]


def _scaling(path: Path, factor: float) -> Path:
    """A graph that gives its input times ``factor``."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    constant = numpy_helper.from_array(np.float32(factor), "factor")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "factor"], ["y"])], "g", [x], [y], [constant])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def _row(name: str) -> dict[str, Any]:
    return {
        "name": name, "tool": "x", "bytes": 4, "sqnr": None, "agreement": 1.0, "macs": 8, "seconds": 1.0,
        "cpu_seconds": 1.0, "peak_mb": 1.0, "latency": {"ms": 1.0, "ratio": 1.0}, "versions": {"x": "1"},
        "nvidia": {"accepted": True, "built": True, "reason": ""}, "kept": "1111", "test_sources": 2,
    }  # fmt: skip


def _result(*rows: dict[str, Any]) -> dict[str, Any]:
    text = {**_row("float32"), "cosine": 1.0, "neighbours": 1.0}

    return {
        "samples": {"efficientnet-lite0": (1, 1), "minilm": (1, 1)},
        "shapes": {"minilm": [1, 17]},
        "models": {"efficientnet-lite0": [_row("float32"), *rows], "minilm": [text]},
        "groups": {"efficientnet-lite0": [0, 0, 1, 1], "minilm": [0]},
    }
