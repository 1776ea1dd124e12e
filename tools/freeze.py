"""Write tests/frozen: bundles of today's format, and what the public functions answer of them.

Usage: python tools/freeze.py [--answers] [CASE ...]

Only to be run when the format, or an answer, changes on purpose: what it writes is what tests/test_frozen.py holds
later versions to. Look at the difference before it is committed.

    python tools/freeze.py             bundles of today's format (tests/frozen/formatN) are made again, and asked
    python tools/freeze.py --answers   those of all formats stay as they were written, and are asked again

A bundle of an old format must be read for good, so with a new ``FORMAT`` the old folders stay beside the new one.
Everything is from fixed seeds; what differs from one run to the next is times and dates in the manifests.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import frozenbundles as frozen  # noqa: E402
from hubmodels import write_headed, write_sentence_transformer  # noqa: E402
from huggingface_hub import close_session  # noqa: E402
from localhub import LocalHub, point_at  # noqa: E402

import pocketzoo  # noqa: E402
from pocketzoo.compress.configs import Int8Config, LowRankConfig, PruneConfig  # noqa: E402
from pocketzoo.zoo.bundles.manifest import FORMAT  # noqa: E402
from pocketzoo.zoo.data.load_data import load_data  # noqa: E402
from pocketzoo.zoo.models.generation_graphs import with_generation_graphs  # noqa: E402

NOW = frozen.FROZEN / f"format{FORMAT}"
TEXTS = ["the model is small", "an edge device reads texts or images and it is fast", "fast"]
PROMPTS = ["the model", "an edge device reads", "images or"]
SETTINGS: list[dict[str, Any]] = [
    {"target": frozen.FLOAT, "max_new_tokens": 8},
    {"target": frozen.FLOAT, "max_new_tokens": 6, "beams": 3, "length_penalty": 0.5},
    {"target": "cpu", "max_new_tokens": 4},
]
BERT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
# Weights so large that what is written varies, and is never a matter of the last digits.
GPT2 = {"n_embd": 16, "n_layer": 1, "initializer_range": 0.6}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "initializer_factor": 4.0}
Asks = Mapping[str, Any]
Made = tuple[Asks, frozen.Arrays]  # what is asked, and arrays that are read


def image_classifier(case: Path) -> Made:
    """smallnet on digits."""
    pocketzoo.fit("smallnet", "digits-model", data="digits", epochs=12, registry=frozen.frozen_registry())
    return _digits(case, "digits-model")


def compressed(case: Path) -> Made:
    """The image classifier pruned, factorized and in int8 for two targets, whatever this machine's times say."""
    steps = [PruneConfig(ratio=0.3), LowRankConfig(energy=0.9, only_faster=False), Int8Config()]
    pocketzoo.compress(
        NOW / "image-classifier" / "bundle", "digits-small", data="digits", steps=steps,
        targets=("cpu", "tensorrt-rtx"), samples=64, keep_slower=True, accept=True, registry=frozen.frozen_registry(),
    )  # fmt: skip
    return _digits(case, "digits-small")


def _digits(case: Path, made: str) -> Made:
    test = load_data("digits").split("test")
    np.savez_compressed(case / "data.npz", x=test.samples[:160], y=test.targets[:160])
    shutil.copytree(made, case / "bundle")
    return {"data": "data.npz"}, {"x": test.samples[:8]}


def text_encoder(case: Path) -> Made:
    """A tiny BERT with its pooling, as sentence-transformers keeps it."""
    with _hub(lambda folder: write_sentence_transformer(folder, **BERT)) as name:
        shutil.copytree(pocketzoo.open_model(name).path, case / "bundle")
    return {"texts": TEXTS}, {}


def regression(case: Path) -> Made:
    """A perceptron on a table of three columns."""
    x = np.random.default_rng(0).normal(size=(160, 3)) * (1.0, 100.0, 0.01)
    y = np.sin(x[:, 0]) + x[:, 1] / 100 * x[:, 2] * 100
    rows = ["width,height,age,label", *(f"{a:.4f},{b:.2f},{c:.6f},{v:.5f}" for (a, b, c), v in zip(x, y, strict=True))]
    Path("houses.csv").write_text("\n".join(rows) + "\n")
    pocketzoo.fit(
        "mlp", "houses", data="houses.csv", head="regression", epochs=150, backbone_options={"hidden": (12, 8)}
    )
    shutil.copytree("houses", case / "bundle")
    shutil.copy("houses.csv", case / "houses.csv")
    return {"data": "houses.csv"}, {"x": x[:8].astype(np.float32)}


def gpt2(case: Path) -> Made:
    """A tiny GPT-2 with its graphs that write, the same in int8 for the CPU."""
    return _language(case, "gpt2", "language", GPT2)


def t5(case: Path) -> Made:
    """A tiny T5: an encoder and a decoder that write, the same in int8 for the CPU."""
    return _language(case, "t5", "answer", T5)


def _language(case: Path, family: str, task: str, sizes: Mapping[str, Any]) -> Made:
    (case / "sayings.txt").write_text("\n".join(TEXTS * 10) + "\n")
    shutil.copy(case / "sayings.txt", "sayings.txt")
    asks = {"texts": TEXTS, "prompts": PROMPTS, "settings": SETTINGS}
    with _hub(lambda folder: write_headed(folder, family, task, changes=sizes)) as name:
        registry = frozen.frozen_registry()
        bundle = with_generation_graphs(pocketzoo.open_model(name, registry=registry), registry)
        if task == "answer":
            shutil.copytree(bundle.path, case / "bundle")
            (case / "sayings.txt").unlink()
            return asks, {}
        pocketzoo.compress(
            bundle.path, "small", data="sayings.txt", steps=[Int8Config()], samples=8, keep_slower=True, accept=True,
            registry=registry,
        )  # fmt: skip
    shutil.copytree("small", case / "bundle")
    return {**asks, "data": "sayings.txt"}, {}


def agent(case: Path) -> Made:
    """Values of the corridor's actions, learned in it."""
    training = {"steps": 600, "warm_up": 50, "explore_steps": 300, "evaluate_every": 300, "episodes": 4,
                "learning_rate": 5e-3, "discount": 0.9, "goal": 2.0}  # fmt: skip
    pocketzoo.fit_agent(frozen.ENVIRONMENT, "corridor", backbone_options={"hidden": (8,)}, training=training)
    shutil.copytree("corridor", case / "bundle")
    return {"episodes": 5}, {"x": np.eye(frozen.corridor.LENGTH, dtype=np.float32)}


def foreign(case: Path) -> Made:
    """A graph as an exporter writes it that folds nothing, its batch fixed."""
    onnx.save(_graph(), case / "theirs.onnx")
    shutil.copytree(pocketzoo.open_graph(case / "theirs.onnx").path, case / "bundle")
    return {"source": "theirs.onnx"}, {"x": np.random.default_rng(1).normal(size=(3, 3, 12, 12)).astype(np.float32)}


def _graph() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3, 3, 3), "fc": (5, 4), "fb": (5,), **dict.fromkeys(("gamma", "beta", "mean", "var"), (4,))}
    weights = [
        numpy_helper.from_array(rng.uniform(0.2, 1.0, shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    weights.append(numpy_helper.from_array(np.array([1, 4], np.int64), "rows"))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "gamma", "beta", "mean", "var"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Reshape", ["d", "rows"], ["e"]),
        helper.make_node("Gemm", ["e", "fc", "fb"], ["y"], transB=1),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 12, 12))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5))]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


CASES: dict[str, Callable[[Path], Made]] = {  # the compressed one is made of the image classifier
    "image-classifier": image_classifier,
    "compressed": compressed,
    "text-encoder": text_encoder,
    "regression": regression,
    "gpt2": gpt2,
    "t5": t5,
    "agent": agent,
    "foreign": foreign,
}


@contextmanager
def _hub(write: Callable[[Path], object]) -> Iterator[str]:
    """A Hub of this machine with one repository in it; the name it is opened by."""
    with tempfile.TemporaryDirectory() as folder, LocalHub(Path(folder) / "hub") as hub:
        write(Path(folder) / "model")
        hub.state.add_folder("acme/model", Path(folder) / "model")
        with pytest.MonkeyPatch.context() as patch:
            point_at(hub, patch, Path(folder) / "hf")
            yield "hf://acme/model"
            close_session()


def make(name: str) -> None:
    """Write one case anew, in today's format."""
    case, before = NOW / name, Path.cwd()
    shutil.rmtree(case, ignore_errors=True)
    case.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # so that no path of this machine gets into a manifest
        try:
            asks, given = CASES[name](case)
        finally:
            os.chdir(before)
    frozen.save_golden(case, asks, given)


def ask_again(case: Path) -> None:
    """Write the answers of a bundle anew, and nothing else."""
    golden, arrays = frozen.load_golden(case)
    frozen.save_golden(case, golden["asks"], {name: array for name, array in arrays.items() if name == "x"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)} [default: all]")
    parser.add_argument("--answers", action="store_true", help="keep the bundles, and ask them again")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no case is called {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    names = [name for name in CASES if name in options.cases or not options.cases]
    cases = [frozen.FROZEN / case for case in frozen.cases()] if options.answers else [NOW / name for name in names]
    for case in (case for case in cases if case.name in names):
        with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
            patch.setenv("POCKETZOO_HOME", home)
            if options.answers:
                ask_again(case)
            else:
                make(case.name)
        size = sum(path.stat().st_size for path in case.rglob("*") if path.is_file())
        print(f"wrote {case.relative_to(ROOT)}, {size / 1e3:,.0f} KB", flush=True)


if __name__ == "__main__":
    main()
