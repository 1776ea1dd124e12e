"""Language models learn from texts: every way to train one. What it writes: tests/workflows/test_run_generation.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hubmodels import write_model
from languages import Languages, languages

from pocketzoo.core.errors import DataError, HeadMismatchError, RecipeError
from pocketzoo.core.progress import SILENT
from pocketzoo.train.distributed.process_group import World
from pocketzoo.train.model_for_data import ModelForData, asked_for, task_of
from pocketzoo.train.settings import TrainConfig
from pocketzoo.train.snapshot import state_of
from pocketzoo.train.transfer_learning import Transfer
from pocketzoo.zoo.models.resolver import Resolver

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
QUICK = {"epochs": 5, "batch_size": 4, "window": 8, "learning_rate": 0.02}
LORA = {**QUICK, "lora_rank": 4, "backbone_rate": 1.0}
WAYS = {
    "all": ({"unfreeze": "all", "backbone_rate": 0.2}, {"backbone", "head"}),
    "head": ({}, {"head"}),
    # Adapters stand for all of it: the head that was pretrained stays as it is.
    "adapters": (LORA, {"backbone"}),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("languages")
    write_model(folder / "bert", "bert")
    with languages(folder, ("gpt2", "llama")) as found:
        found.hub.add_folder("acme/bert", folder / "bert")
        yield found


def task(small: Languages, family: str = "gpt2", head: str = "language-model", **settings: object) -> ModelForData:
    resolver = Resolver(small.registry)
    asked = asked_for(f"hf://acme/{family}", head, None, None, "", None, resolver)
    return task_of(asked, small.texts, TrainConfig(**{**QUICK, **settings}), resolver, None, SILENT)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("way", WAYS)
def test_the_loss_falls_and_what_was_asked_for_moves(way, family, small):
    settings, moved = WAYS[way]
    given = task(small, family, **settings)
    before = state_of(given.model)
    run = Transfer(given.model, given.parts, given.task, given.training, given.dataset, given.ref.outputs, given.config,
                   digest=given.dataset.digest(), world=World(), progress=SILENT)  # fmt: skip
    history, scores = run.run()
    assert history.losses[-1] < 0.9 * history.losses[0]
    after = given.model.state_dict()
    assert {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])} == moved
    assert scores["test"]["log_likelihood"].value == pytest.approx(likelihood(given), rel=1e-5)


def likelihood(given: ModelForData) -> float:
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


def test_what_cannot_learn_so_is_refused(small, refused, few):
    with refused(HeadMismatchError, "attends in both directions", hint="GPT-2 or Llama"):
        task(small, "bert")
    with refused(RecipeError, "balanced means nothing for text-generation"):
        task(small, balanced=True)
    with refused(DataError, "is trained on texts", hint="token ids from 0 to 19"):
        resolver = Resolver(small.registry)
        asked = asked_for("hf://acme/gpt2", "language-model", None, None, "", None, resolver)
        task_of(asked, few, TrainConfig(), resolver, None, SILENT)
