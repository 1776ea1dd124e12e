"""Language models learn from texts: every way to train one, and what it then writes, beside the library."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hubmodels import WORDS, write_model
from languages import SAYINGS, Languages, languages

from pocketzoo.deploy.evaluate import evaluate
from pocketzoo.deploy.generate import generate
from pocketzoo.errors import DataError, HeadMismatchError, RecipeError
from pocketzoo.progress import SILENT
from pocketzoo.train.fit import fit
from pocketzoo.train.settings import TrainConfig
from pocketzoo.train.task import Task, asked_for, task_of
from pocketzoo.train.transfer import Transfer
from pocketzoo.train.world import World
from pocketzoo.zoo.model import load_module
from pocketzoo.zoo.snapshot import state_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
QUICK = {"epochs": 5, "batch_size": 4, "window": 8, "learning_rate": 0.02}
LORA = {**QUICK, "lora_rank": 4, "backbone_rate": 1.0}
WAYS = {
    "all": ({"unfreeze": "all", "backbone_rate": 0.2}, {"backbone", "head"}),
    "head": ({}, {"head"}),
    # Adapters stand for all of it: the head that was pretrained stays as it is.
    "adapters": (LORA, {"backbone"}),
}
IDS = [[2, *map(WORDS.index, SAYINGS[0].split()), 3]]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("languages")
    write_model(folder / "bert", "bert")
    with languages(folder, ("gpt2", "llama")) as found:
        found.hub.add_folder("acme/bert", folder / "bert")
        yield found


def task(small: Languages, family: str = "gpt2", head: str = "language-model", **settings: object) -> Task:
    asked = asked_for(f"hf://acme/{family}", head, None, None, "", None, small.registry)
    return task_of(asked, small.texts, TrainConfig(**{**QUICK, **settings}), small.registry, None, SILENT)


def library_greedy(small: Languages, family: str, module: torch.nn.Module, longest: int, ends: list[int]) -> list[int]:
    """What the library writes behind IDS with these weights."""
    model = type(small.models[family])(small.models[family].config).eval()
    model.base_model.load_state_dict(module.backbone.model.state_dict())
    model.lm_head.weight = torch.nn.Parameter(module.head.linear.weight.detach().clone())  # no longer the embedding's
    given = torch.tensor(IDS)
    with torch.no_grad():
        out = model.generate(given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=longest,
                             pad_token_id=0, eos_token_id=ends or None)  # fmt: skip
    return out[0, given.shape[1] :].tolist()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("way", WAYS)
def test_the_loss_falls_and_what_was_asked_for_moves(way, family, small):
    settings, moved = WAYS[way]
    given = task(small, family, **settings)
    before = state_of(given.model)
    run = Transfer(given.model, given.parts, given.dataset, given.ref.outputs, given.config,
                   digest=given.dataset.digest(), world=World(), progress=SILENT)  # fmt: skip
    history, scores = run.run()
    assert history.losses[-1] < 0.8 * history.losses[0]
    after = given.model.state_dict()
    assert {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])} == moved
    assert scores["test"] == pytest.approx(likelihood(given), rel=1e-5)


def likelihood(given: Task) -> float:
    """The mean log probability of what follows each token of the test split, by the definition."""
    split = given.dataset.split("test")
    with torch.no_grad():
        logs = given.model(torch.from_numpy(split.samples)).double().log_softmax(-1).numpy()
    known = split.targets != -100
    return float(np.take_along_axis(logs[known], split.targets[known][:, None], 1).mean())


def test_it_starts_from_the_head_that_the_backbone_was_trained_with(small):
    given = task(small)
    assert given.ref.head.startswith("hf://acme/gpt2@")
    assert torch.equal(given.model.head.linear.weight, small.models["gpt2"].lm_head.weight)
    assert task(small, head="hf://acme/gpt2#head").ref == given.ref


@pytest.mark.slow
def test_by_adapters_to_a_bundle_that_writes_what_the_library_writes(small, tmp_path):
    bundle = fit("hf://acme/llama", tmp_path / "x", data=small.texts, head="language-model", training=LORA,
                 registry=small.registry)  # fmt: skip
    metrics = bundle.manifest.metrics
    assert metrics["test_perplexity"] == pytest.approx(math.exp(-metrics["test_log_likelihood"]))
    scores = evaluate(bundle.path, data=small.texts, registry=small.registry)
    assert scores["perplexity"] == pytest.approx(metrics["test_perplexity"], rel=1e-4)
    (written,) = generate(bundle.path, [SAYINGS[0]], max_new_tokens=8, registry=small.registry)
    module = load_module(bundle, small.registry)
    right = library_greedy(small, "llama", module, 8, [3])
    assert list(written.ids) == right[: len(written.ids)]
    assert len(written.ids) == 8 or written.ids[-1] == 3


def test_what_cannot_learn_so_is_refused(small, refused, few):
    with refused(HeadMismatchError, "reads a text from both sides", hint="GPT-2 or Llama"):
        task(small, "bert")
    with refused(RecipeError, "balanced is for classes"):
        task(small, balanced=True)
    with refused(DataError, "learns from texts", hint="token ids from 0 to 19"):
        asked = asked_for("hf://acme/gpt2", "language-model", None, None, "", None, small.registry)
        task_of(asked, few, TrainConfig(), small.registry, None, SILENT)
