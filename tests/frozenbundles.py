"""What is asked of the bundles in tests/frozen, and how: tools/freeze.py writes the answers, test_frozen.py compares.

A case is a folder, ``formatN/NAME``: ``bundle``, as it was written; what it needs beside it; ``golden.json``, with what
is asked and the answers that are compared as they are; ``golden.npz``, with arrays that are compared by their values.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import corridor  # registers the environment of the agent
import numpy as np
import numpy.typing as npt
import onnx
import smallnet
import torch
from onnx import ModelProto, helper, numpy_helper

import pocketzoo
from pocketzoo.compress.pipeline.compress_model import encode_graphs
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle
from pocketzoo.zoo.bundles.manifest import MANIFEST
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.models.build import load_module
from pocketzoo.zoo.models.resolver import Resolver

FROZEN = Path(__file__).parent / "frozen"
ENVIRONMENT = corridor.Corridor.__name__ + "-v0"
TARGETS = ("jetson-orin", "openvino", "tensorrt")  # that no frozen bundle has a graph for
FLOAT = TARGETS[0]  # for it, then, the float graph answers: integer kernels differ from one processor to the next
Arrays = dict[str, npt.NDArray[Any]]


def cases() -> list[str]:
    """What is frozen, of every format there was: "format1/agent", ..."""
    return sorted(path.parent.relative_to(FROZEN).as_posix() for path in FROZEN.glob("format*/*/golden.json"))


def frozen_registry() -> Registry:
    """What ships, and the backbone of smallnet.py."""
    return Registry(create_manager(points=[], extra=[smallnet]))


def answers(case: Path, asks: Mapping[str, Any], given: Arrays) -> tuple[dict[str, Any], Arrays]:
    """What the public functions answer to ``asks``: facts, and arrays by name. ``given`` has what is read."""
    registry = frozen_registry()
    bundle = read_bundle(case / "bundle")
    facts: dict[str, Any] = {
        "gives": bundle.manifest.former_returns or "tensors",
        "files": sorted(bundle.manifest.files),
    }
    arrays: Arrays = {}
    batch = asks.get("texts") or given["x"]
    for target in bundle.encodings():
        with pocketzoo.load_runtime(bundle.path, target=target or FLOAT, threads=1, provider="cpu") as runtime:
            arrays[f"predict {target or 'float'}"] = runtime.predict(batch)
            if not target:
                arrays["read"] = next(iter(runtime.processor.batch(batch).values()))
                if bundle.manifest.labels:
                    facts["classes"] = [row[0][0] for row in runtime.classify(batch)]
    if "model.safetensors" in bundle.manifest.files:
        with torch.no_grad():
            arrays["module"] = load_module(bundle, registry)(torch.from_numpy(arrays["read"])).numpy()
    facts["graphs"] = {path.name: graph_digest(onnx.load(path)) for path in sorted(bundle.path.glob("*.onnx"))}
    facts["encoded"] = _encoded(bundle, registry)
    if "prompts" in asks:
        facts["written"] = [_written(bundle, asks, settings, registry) for settings in asks["settings"]]
    if "data" in asks:
        # Divided by sample, as when they were frozen: samples that are alike go to one side now if nothing is said.
        data = f"{case / asks['data']}?group=sample"
        scores = pocketzoo.eval(bundle.path, data=data, target=FLOAT, registry=registry)
        # What is said besides, now that metrics have intervals.
        facts["scores"] = {name: value for name, value in scores.items() if name not in ("metric", "intervals")}
    if "episodes" in asks:
        facts["returns"] = list(pocketzoo.play(bundle.path, ENVIRONMENT, episodes=asks["episodes"]).returns)
    if "source" in asks:  # opened anew, as it was when the bundle was written
        again = pocketzoo.open_graph(case / asks["source"])
        facts["opened"] = sorted(again.manifest.files)
        with pocketzoo.load_runtime(again, threads=1, provider="cpu") as runtime:
            arrays["opened"] = runtime.predict(batch)
    return facts, arrays


def _written(bundle: Bundle, asks: Mapping[str, Any], settings: Mapping[str, Any], registry: Registry) -> Any:
    found = pocketzoo.generate(bundle.path, asks["prompts"], registry=registry, **settings)
    return [{"text": each.text, "ids": list(each.ids)} for each in found]


def _encoded(bundle: Bundle, registry: Registry) -> dict[str, Any]:
    """Digests of the graphs that the saved plans give for targets the bundle has none for."""
    found: dict[str, Any] = {}
    compressors = Resolver(registry).compressors(bundle)
    for name in TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            target = registry.get("target", name)
            graphs = encode_graphs(bundle, target, lambda: compressors, Path(folder))
            made = {graph: path for graph, path in graphs.items() if path.parent == Path(folder)}
            found[name] = {graph: graph_digest(onnx.load(path)) for graph, path in made.items()}
    return {name: digests for name, digests in found.items() if digests}


def graph_digest(model: ModelProto) -> str:
    """Of nodes, constants, inputs and outputs; not of who wrote the file, nor of how protobuf laid it out."""
    graph, digest = model.graph, hashlib.sha256()

    def add(*words: object) -> None:
        digest.update(repr(words).encode())

    for opset in sorted((o.domain, o.version) for o in model.opset_import):
        add("opset", *opset)
    for value in (*graph.input, *graph.output):
        tensor = value.type.tensor_type
        add("value", value.name, tensor.elem_type, [d.dim_param or d.dim_value for d in tensor.shape.dim])
    for node in graph.node:
        add("node", node.domain, node.op_type, node.name, list(node.input), list(node.output))
        for attribute in sorted(node.attribute, key=lambda a: a.name):
            _add_value(add, attribute.name, helper.get_attribute_value(attribute))
    for tensor in sorted(graph.initializer, key=lambda t: t.name):
        _add_value(add, tensor.name, tensor)
    return digest.hexdigest()


def _add_value(add: Any, name: str, value: Any) -> None:
    if isinstance(value, onnx.TensorProto):
        array = numpy_helper.to_array(value)
        add("tensor", name, value.data_type, array.shape, array.tobytes())
    elif isinstance(value, onnx.GraphProto):
        add("graph", name, value.SerializeToString(deterministic=True))
    else:
        add("attribute", name, list(value) if not isinstance(value, bytes | int | float) else value)


def is_part_of(old: Any, new: Any) -> bool:
    """Whether all of ``old`` is in ``new``, which may have more keys: facts that came later, with their defaults."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(key in new and is_part_of(value, new[key]) for key, value in old.items())
    if isinstance(old, list):
        return isinstance(new, list) and len(old) == len(new) and all(map(is_part_of, old, new))
    return bool(old == new)


def stored_manifest(case: Path) -> Any:
    return json.loads((case / "bundle" / MANIFEST).read_text("utf8"))


def load_golden(case: Path) -> tuple[dict[str, Any], Arrays]:
    """``{"asks": ..., "answers": ...}``, and the arrays; of those, ``x`` is what is read."""
    path = case / "golden.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads((case / "golden.json").read_text("utf8")), arrays


def save_golden(case: Path, asks: Mapping[str, Any], given: Arrays) -> None:
    """Ask, and write the answers."""
    facts, arrays = answers(case, asks, given)
    text = json.dumps({"asks": asks, "answers": facts}, indent=1, ensure_ascii=False)
    (case / "golden.json").write_text(text + "\n", "utf8")
    np.savez_compressed(case / "golden.npz", **given, **arrays)
