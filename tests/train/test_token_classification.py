"""Token classification from words and tags to answers: fitted, scored, compressed within a budget, on one tiny BERT."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hubmodels import write_model
from huggingface_hub import close_session
from localhub import LocalHub, point_at

import pocketzoo
from pocketzoo.compress.configs import Int8Config
from pocketzoo.core.errors import DataError
from pocketzoo.measure.confusion_matrix import measure_confusion
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.tasks.open_task import need_task, reading_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
TAGS = {"edge": "B-PLACE", "device": "I-PLACE", "model": "B-THING", "images": "B-THING", "texts": "B-THING"}
OTHERS = ["the", "a", "is", "small", "fast", "on", "an", "and", "it", "reads", "or"]


def sentences(count: int = 150) -> list[list[tuple[str, str]]]:
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        words = list(generator.choice(OTHERS, generator.integers(2, 6)))
        for entity in generator.choice(["edge device", "model", "images", "texts"], 2):
            place = int(generator.integers(0, len(words) + 1))
            words[place:place] = entity.split()
        rows.append([(str(word), TAGS.get(str(word), "O")) for word in words])
    return rows


class Fitted:
    """A tiny BERT on a Hub of this process, fitted to a CoNLL file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, sentences()
        self.registry = Registry(create_manager(points=[]))
        self.conll = folder / "words.txt"
        self.conll.write_text("\n".join("".join(f"{w} {t}\n" for w, t in row) for row in self.rows))
        self.bundle = pocketzoo.fit(
            "hf://acme/tiny", folder / "m", data=self.conll, head="token-classifier", epochs=60, learning_rate=0.05,
            registry=self.registry,
        )  # fmt: skip

    def eval(self, model: Path, data: object) -> dict[str, object]:
        return pocketzoo.eval(model, data=data, registry=self.registry)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tags")
    with LocalHub(folder / "hub") as hub, pytest.MonkeyPatch.context() as patch:
        write_model(folder / "tiny", "bert")
        hub.state.add_folder("acme/tiny", folder / "tiny")
        point_at(hub, patch, folder / "hf")
        patch.setenv("POCKETZOO_HOME", str(folder / "home"))
        yield Fitted(folder)
        close_session()


def test_tags_of_words_are_learned(fitted):
    manifest = fitted.bundle.manifest
    assert manifest.task == "token-classification"
    assert manifest.labels == ("B-PLACE", "B-THING", "I-PLACE", "O")
    assert manifest.metrics["test_token_accuracy"] > 0.95
    assert manifest.metrics["test_entity_f1"] > 0.9
    found = fitted.eval(fitted.bundle.path, fitted.conll)
    assert found["metric"] == "token accuracy"
    for name in ("token accuracy", "entity f1"):
        assert found[name] == pytest.approx(manifest.metrics[f"test_{name.replace(' ', '_')}"], abs=1e-6)


def test_each_form_of_the_data_scores_the_same(fitted, tmp_path):
    """The same texts in another order of columns, lists or texts: one data set, so one score on all of it."""
    lines = [{"words": [w for w, _ in row], "tags": [t for _, t in row]} for row in fitted.rows]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "d.csv").write_text(
        "sentence,ner\n" + "".join(f"{' '.join(row['words'])},{' '.join(row['tags'])}\n" for row in lines)
    )
    (tmp_path / "d.conll").write_text(fitted.conll.read_text())
    scores = [
        fitted.eval(fitted.bundle.path, data)["entity f1"]
        for data in (tmp_path / "d.jsonl", f"{tmp_path / 'd.csv'}?text=sentence&label=ner", tmp_path / "d.conll")
    ]
    assert scores[0] == scores[1] == scores[2] > 0.9


def test_answers_are_those_of_the_tokens_and_a_report_draws_them(fitted):
    (answer,) = pocketzoo.predict(fitted.bundle.path, ["the model is on an edge device"], registry=fitted.registry)
    expected = ["O", "B-THING", "O", "O", "O", "B-PLACE", "I-PLACE"]
    assert answer.answer["tokens"][1:-1] == expected  # between [CLS] and [SEP]
    task = need_task(fitted.bundle.manifest, fitted.registry)
    data = load_data(fitted.conll, registry=fitted.registry, **reading_of(task))
    answers = measure_confusion(fitted.bundle, data, registry=fitted.registry)
    assert (answers.task, answers.samples) == ("token-classification", len(data.split("test")))
    assert any("edge device" in drawn and "B-PLACE I-PLACE" in drawn for drawn in answers.drawn)


def test_a_budget_holds_its_metric_and_a_bench_has_it(fitted, tmp_path, untimed):
    small = pocketzoo.compress(
        fitted.bundle.path, tmp_path / "s", data=fitted.conll, steps=[Int8Config()], samples=32, max_drop=0.05,
        keep_slower=True, registry=fitted.registry,
    )  # fmt: skip
    (step,) = small.manifest.steps
    assert step.report.metric.name == "token accuracy"
    assert (
        small.manifest.metrics["test_token_accuracy_cpu"]
        >= fitted.bundle.manifest.metrics["test_token_accuracy"] - 0.05
    )
    rows = pocketzoo.bench([fitted.bundle.path, small.path], data=fitted.conll, seconds=0, registry=fitted.registry)
    scores = [fitted.eval(path, fitted.conll)["token accuracy"] for path in (fitted.bundle.path, small.path)]
    assert [row.metric.value for row in rows] == pytest.approx(scores)


def test_tags_that_the_model_does_not_know_are_named(fitted, tmp_path, refused):
    (tmp_path / "d.conll").write_text("model B-THING\nedge B-PLASE\n\n" * 5)
    with refused(DataError, "has tags unknown to the model: B-PLASE", hint="B-PLACE"):
        fitted.eval(fitted.bundle.path, tmp_path / "d.conll")
    (tmp_path / "e.conll").write_text("model NOUN\nis VERB\n\n" * 5)
    with refused(DataError, "has no targets for token-classification", hint="labels"):
        fitted.eval(fitted.bundle.path, tmp_path / "e.conll")


def test_data_without_tags_is_refused_where_they_are_needed(fitted, tmp_path, refused):
    (tmp_path / "d.txt").write_text("the model is small\n" * 10)
    with refused(DataError, "has no tags of words", hint="CoNLL"):
        pocketzoo.fit("hf://acme/tiny", tmp_path / "m", data=tmp_path / "d.txt", head="token-classifier",
                      registry=fitted.registry)  # fmt: skip
