"""A generated graph through a whole ``compress``: what the table and the manifest claim is counted once more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from graph_generator import Generated
from graph_recount import recounted
from graph_runs import outputs_of, runs, wide
from onnx import ModelProto, helper, numpy_helper

SAMPLES = 48
REJECTED = 3  # the exit code


def compressed(graph: Generated, target: str, folder: Path) -> tuple[str, list[str]]:
    """How a whole run of the command ended, and what was wrong with what it wrote."""
    from click.testing import CliRunner

    from pocketzoo.cli.main import cli

    place = folder / f"c{graph.seed}"
    place.mkdir()
    try:
        onnx.save(graph.model, place / "g.onnx")
        np.savez(place / "d.npz", **graph.listed(SAMPLES, 5))
        words = ["compress", place / "g.onnx", "--int8", "--data", place / "d.npz", "--target", target]
        words += [word for name, length in graph.sizes.items() for word in ("--axis", f"{name}={length}")]
        words += ["--keep-slower", "--accept", "--json", "-o", place / "out"]
        ended = CliRunner().invoke(cli, [str(word) for word in words], prog_name="pocketzoo")
        if ended.exit_code == 0:
            return "compressed", _wrong(json.loads(ended.stdout), place / "out", target, runs(graph.feed(1, 5))[0])
        said = ended.stderr.strip().splitlines()
        if ended.exit_code == REJECTED and _nothing_there(said):
            return "nothing to compress", []
        last = " / ".join(said[-2:])[:300]
        return "not compressed", [f"compress for {target} ended with {ended.exit_code}: {last} {ended.exception!r}"]
    finally:
        shutil.rmtree(place)


def _nothing_there(said: list[str]) -> bool:
    return any("nothing" in line or "no step" in line for line in said)


def _wrong(printed: Any, out: Path, target: str, sample: dict[str, Any]) -> list[str]:
    """Claims that do not hold: bytes, parameters and multiply-accumulates."""
    manifest = json.loads((out / "pocketzoo.json").read_text("utf8"))
    rows, wrong = manifest["measurements"], list[str]()
    shown = printed["measurements"] if isinstance(printed, dict) and "measurements" in printed else rows
    if [_figures(row) for row in shown] != [_figures(row) for row in rows]:
        wrong.append("what is printed is not what the manifest says")
    exact = onnx.load(out / "model.onnx")
    counted = recounted(exact, {**sample, **outputs_of(wide(exact), sample, rewritten=False)})
    if counted is not None:
        here = _stored(exact), counted[1]
        for row in rows:
            if (told := (row["parameters"], row["macs"])) != here:
                wrong.append(f"{row['bundle']} {row['precision']}: {told} parameters and MACs, recounted {here}")
    for row in rows[1:]:
        path = out / (f"model.int8.{row['target']}.onnx" if row["target"] else "model.onnx")
        if row["bytes"] != path.stat().st_size:
            wrong.append(f"{path.name}: {row['bytes']} bytes, the file has {path.stat().st_size}")
    if not any(row["target"] == target for row in rows):
        return [*wrong, f"no row of {target}"]
    return wrong


def _figures(row: Any) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("precision", "target", "bytes", "parameters", "macs", "sqnr"))


def _stored(model: ModelProto) -> int:
    """The numbers that a float graph stores."""
    return sum(
        numpy_helper.to_array(tensor).size
        for tensor in model.graph.initializer
        if helper.tensor_dtype_to_np_dtype(tensor.data_type).kind == "f"
    )
