"""Transfer learning on real digits: accurate, deterministic, and leaving the backbone as it was."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from feeds import arrays
from safetensors.torch import load_file
from told import Told

import pocketzoo
from pocketzoo.core.errors import (
    BundleError,
    DataError,
    HeadMismatchError,
    PocketzooError,
    RecipeError,
    UnknownNameError,
)
from pocketzoo.core.numerics import r2
from pocketzoo.measure.evaluate import evaluate
from pocketzoo.train.fit import _key, fit
from pocketzoo.train.model_for_data import _for_rows, asked_for, task_of
from pocketzoo.train.settings import TrainConfig
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.catalog.dataset import SPLITS, Dataset, Split
from pocketzoo.zoo.catalog.specs import FeatureSpec
from pocketzoo.zoo.data.batches import from_arrays
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.hub.weights import read_weights
from pocketzoo.zoo.models.build import load_module
from pocketzoo.zoo.models.heads import plain_options
from pocketzoo.zoo.models.resolver import Resolver


@pytest.fixture(scope="module")
def digits(registry) -> Dataset:
    return registry.get("dataset", "digits").load()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"head": "no"}, UnknownNameError),
        ({"cut": "no"}, UnknownNameError),
        ({"head": "tinynet-fashion-mnist"}, HeadMismatchError),
    ],
    ids=["head", "cut", "fitted head"],
)
def test_the_model_is_looked_at_before_the_data(changes, kind, tmp_path):
    with pytest.raises(kind):
        fit("tinynet", tmp_path / "out", data=tmp_path / "nowhere", **changes)


def head_of(bundle) -> dict[str, torch.Tensor]:
    return {k: v for k, v in load_file(bundle.file("model.safetensors")).items() if k.startswith("head.")}


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(two) and all(torch.equal(v, two[k]) for k, v in one.items())


@pytest.fixture(scope="module")
def small(few, registry, tmp_path_factory):
    return fit("tinynet", tmp_path_factory.mktemp("fit") / "few", data=few, epochs=4, registry=registry)


# -- what comes out


def test_the_fixture_is_accurate(fitted):
    assert fitted.manifest.metrics["test_accuracy"] >= 0.94
    assert fitted.manifest.metrics["val_accuracy"] >= 0.94


@pytest.mark.slow
def test_default_settings_reach_97_percent_on_digits(registry, tmp_path):
    bundle = pocketzoo.fit("tinynet", tmp_path / "digits", data="digits", registry=registry)
    assert bundle.manifest.metrics["test_accuracy"] >= 0.97
    assert bundle.manifest.provenance["training"]["epochs"] == TrainConfig().epochs


def test_the_backbone_is_the_pretrained_one_bit_for_bit(fitted, small, registry):
    wanted = read_weights(registry.get("backbone", "tinynet").weights)
    for bundle in (fitted, small):
        saved = load_file(bundle.file("model.safetensors"))
        assert all(torch.equal(saved[f"backbone.{k}"], v) for k, v in wanted.items())


def test_the_bundle_is_whole_and_says_what_it_is(small):
    manifest = read_bundle(small.path).manifest
    assert manifest == small.manifest
    assert (manifest.name, manifest.labels, manifest.license) == ("few", ("zero", "one", "two"), "MIT")
    assert (manifest.model.backbone, manifest.model.head, manifest.model.outputs) == ("tinynet", "linear", 3)
    assert manifest.steps == ()


def test_the_provenance_names_data_and_settings(small, few):
    facts = small.manifest.provenance
    assert facts["plugin"] == "tinynet"
    assert facts["data"]["name"] == "few"
    assert facts["data"]["sha256"] == few.digest()
    assert facts["data"]["samples"] == {name: len(few.split(name)) for name in SPLITS}
    training = facts["training"]
    assert (training["epochs"], training["seed"], training["batch_size"]) == (4, 0, 64)
    assert training["learning_rate"] == pytest.approx(3e-3)
    assert len(training["val_accuracy"]) == 4


def test_the_head_is_of_the_best_epoch(small, fitted):
    for bundle in (small, fitted):
        history = bundle.manifest.provenance["training"]["val_accuracy"]
        assert bundle.manifest.metrics["val_accuracy"] == max(history)


@pytest.mark.parametrize("name", ["val", "test"])
def test_the_accuracy_can_be_recounted(fitted, registry, digits, name):
    from pocketzoo.zoo.data.batches import Batches

    module, right = load_module(fitted, registry), 0
    for x, y in arrays(Batches(digits.split(name), fitted.manifest.input)):
        with torch.no_grad():
            right += int((module(torch.from_numpy(x)).argmax(1).numpy() == y).sum())
    total = len(digits.split(name))
    assert fitted.manifest.metrics[f"{name}_accuracy"] == pytest.approx(right / total, abs=1.5 / total)


def test_the_head_learned_something(small, registry):
    from pocketzoo.zoo.models.build import build

    torch.manual_seed(0)
    fresh = build(small.manifest.model, registry)
    moved = {k: (v - head_of(small)[f"head.{k}"]).abs().max().item() for k, v in fresh.head.state_dict().items()}
    assert min(moved.values()) > 1e-4


# -- determinism


@pytest.mark.parametrize("head", ["linear", "embedding"])
def test_a_finished_bundle_is_not_replaced_unless_told_so(head, few, registry, tmp_path, refused):
    """Said before the backbone, the head or the data is looked at."""
    out, given = tmp_path / "out", {"data": few, "epochs": 1} if head == "linear" else {}
    first = fit("tinynet", out, head=head, registry=registry, **given)
    with refused(BundleError, f"{out} is already a finished bundle", hint="give another -o, or --force to replace it"):
        fit("no backbone", out, head="none", data="no data", registry=registry)
    assert read_bundle(out) == first
    other = fit("tinynet", out, data=few, epochs=2, force=True, registry=registry)
    assert read_bundle(out).manifest == other.manifest
    assert other.manifest.provenance["training"]["epochs"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_another_finished_meanwhile_is_not_lost_nor_is_what_was_learned(few, small, registry, tmp_path, refused):
    out = tmp_path / "out"

    class Other(Told):
        def say(self, text: str) -> None:
            super().say(text)
            if "exporting" in text and not out.exists():
                shutil.copytree(small.path, out)

    given = {"data": few, "epochs": 2, "registry": registry}
    with refused(BundleError, f"{out} is already a finished bundle", hint="--force"):
        fit("tinynet", out, **given, progress=Other())
    assert read_bundle(out).manifest == small.manifest
    told = Told()
    assert fit("tinynet", out, **given, force=True, progress=told).manifest.name == "out"
    assert any("resuming" in line for line in told.said), told.said
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_seed_gives_the_same_head_bit_for_bit(small, few, registry, tmp_path):
    torch.manual_seed(1234)  # what the program did before does not matter
    np.random.default_rng(5).random()
    again = fit("tinynet", tmp_path / "again", data=few, epochs=4, registry=registry)
    assert equal(head_of(again), head_of(small))
    assert again.manifest.metrics == small.manifest.metrics
    assert again.manifest.provenance["training"] == small.manifest.provenance["training"]


def test_another_seed_gives_another_head(small, few, registry, tmp_path):
    other = fit("tinynet", tmp_path / "other", data=few, epochs=4, seed=1, registry=registry)
    assert not equal(head_of(other), head_of(small))


def test_the_data_is_not_changed(few, small):
    assert few.digest() == small.manifest.provenance["data"]["sha256"]


# -- the key of a run


class Asked(BaseException):
    """Ends a run where it asks for its unfinished work."""


@pytest.fixture
def key_of(few, registry, tmp_path, monkeypatch):
    """The key that a call of ``fit`` has, before anything is trained."""

    def unfinished(out, key, *others, **more):
        raise Asked(key)

    def call(**changes) -> str:
        given = {"backbone": "tinynet", "data": few, "epochs": 4, "registry": registry}
        with pytest.raises(Asked) as caught:
            fit(out=tmp_path / "out", **{**given, **changes})
        return str(caught.value)

    monkeypatch.setattr("pocketzoo.train.fit.unfinished", unfinished)
    return call


def test_every_argument_that_decides_what_is_made_is_in_the_key(key_of, few, registry, tmp_path):
    """All of ``fit`` but those named last, so that a new one has to be put somewhere."""
    rows = {name: Split(few.split(name).samples[1:], few.split(name).targets[1:]) for name in SPLITS}
    table = {"backbone": "mlp", "backbone_options": {"input": "1,28,28", "hidden": "8"}}
    changes = {
        "backbone": table,
        "backbone_options": {**table, "backbone_options": {"input": "1,28,28", "hidden": "9"}},
        "data": {"data": replace(few, splits=rows)},
        "head": {"head": "mlp"},
        "head_options": {"head_options": {"pool": "max"}},
        "cut": {"cut": "stage1"},
        "input_size": {"input_size": 36},
        "epochs": {"epochs": 5},
        "batch_size": {"batch_size": 32},
        "learning_rate": {"learning_rate": 1e-3},
        "unfreeze": {"unfreeze": "all"},
        "seed": {"seed": 1},
        "training": {"training": {"optimizer": "sgd"}},
        "skip_bad": {"skip_bad": True},
    }
    assert set(changes) | {"out", "log", "shard", "force", "registry", "progress"} == set(
        inspect.signature(fit).parameters
    )
    keys = {name: key_of(**change) for name, change in changes.items()}
    keys["nothing"] = key_of()
    keys["divided by another seed"] = key_of(data=replace(few, seed=1))
    assert len(set(keys.values())) == len(keys), keys
    assert keys["nothing"] == key_of() == key_of(force=True, log=tmp_path / "log", progress=Told())


def test_the_code_of_all_that_takes_part_is_in_the_key(key_of, monkeypatch):
    """Not of the network alone: who reads the samples, who decodes, and who says what is learned."""
    asked = []
    monkeypatch.setattr("pocketzoo.train.fit.plugin_sources", lambda registry, *entries: asked.extend(entries) or [])
    key_of()
    found = {(entry.kind, entry.name) for entry in asked}
    assert found >= {("backbone", "tinynet"), ("processor", "image")}
    assert {kind for kind, _ in found} == {"backbone", "head", "processor", "task", "decoder"}


SETTINGS = {  # other values of those that have no number of their own
    "optimizer": "sgd", "schedule": "constant", "clip": 1.0, "patience": 3, "unfreeze": "all", "augment": "flip",
    "mix": "mixup:0.2", "precision": "bfloat16", "balanced": True, "missing": "mean",
}  # fmt: skip


def test_every_setting_is_in_the_key(few, registry):
    asked = asked_for("tinynet", "linear", None, None, "", None, Resolver(registry))
    task = task_of(asked, few, TrainConfig(), Resolver(registry), None, Told())

    def key(config: TrainConfig) -> str:
        return _key(task.ref, config, "data", 0, task.model, False, [])

    base = TrainConfig(unfreeze="last:1")
    keys = {"nothing": key(base)}
    for field in dataclasses.fields(TrainConfig):
        value = getattr(base, field.name)
        other = SETTINGS.get(field.name, value + 1 if isinstance(value, int) else None)
        other = (value + 1.0) / 4 if other is None else other
        more = {"unfreeze": "none"} if field.name == "lora_rank" else {}
        keys[field.name] = key(replace(base, **{field.name: other, **more}))
    assert len(set(keys.values())) == len(keys), keys


def test_other_weights_or_another_torch_make_another_run(few, registry, monkeypatch):
    """A plugin's newer version has the same names for other numbers."""
    resolver = Resolver(registry)
    asked = asked_for("tinynet", "linear", None, None, "", None, resolver)
    task = task_of(asked, few, TrainConfig(), resolver, None, Told())
    given = (task.ref, TrainConfig(), "data", 0, task.model, False, [])
    before = _key(*given)
    assert _key(*given) == before
    with torch.no_grad():
        next(task.model.parameters()).flatten()[0] += 1e-3
    after = _key(*given)
    assert after != before
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert _key(*given) not in (before, after)


# -- other ways to call it


@pytest.mark.parametrize("more", [{"head": "mlp"}, {"cut": "stage1"}], ids=str)
def test_other_heads_and_cuts(few, registry, tmp_path, more):
    bundle = fit("tinynet", tmp_path / "x", data=few, epochs=2, registry=registry, **more)
    assert (bundle.manifest.model.head, bundle.manifest.model.cut) == (more.get("head", "linear"), more.get("cut", ""))
    module = load_module(bundle, registry)
    with torch.no_grad():
        assert module(torch.zeros(2, 1, 28, 28)).shape == (2, 3)
    if more.get("cut"):
        saved = load_file(bundle.file("model.safetensors"))
        assert not any("stage2" in key for key in saved)
        assert bundle.manifest.macs < 37_000_000


def test_a_folder_of_images(photos, registry, tmp_path):
    path = photos(tmp_path / "pets", {"cat": 10, "dog": 10})
    bundle = fit("tinynet", tmp_path / "model", data=path, epochs=20, registry=registry)
    assert bundle.manifest.labels == ("cat", "dog")
    assert bundle.manifest.metrics["test_accuracy"] == 1.0, "dark images and bright ones"
    assert "skipped" not in bundle.manifest.metrics


def test_unreadable_images_stop_or_are_counted(photos, registry, tmp_path, refused):
    path = photos(tmp_path / "pets", {"cat": 10, "dog": 10})
    for name in ("cat/001.png", "dog/002.png"):
        (path / name).write_bytes(b"broken")
    with refused(DataError, "cannot read the image", hint="--skip-bad"):
        fit("tinynet", tmp_path / "model", data=path, epochs=1, registry=registry)
    assert not (tmp_path / "model").exists()
    bundle = fit("tinynet", tmp_path / "model", data=path, epochs=1, skip_bad=True, registry=registry)
    assert bundle.manifest.metrics["skipped"] == 2


def test_arrays_that_are_ready(registry, tmp_path):
    generator = np.random.default_rng(0)
    y = np.arange(30) % 2
    x = (generator.normal(size=(30, 1, 28, 28)) + 3 * y[:, None, None, None]).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x, y=y)
    bundle = fit("tinynet", tmp_path / "model", data=tmp_path / "x.npz", epochs=20, registry=registry)
    assert bundle.manifest.metrics["test_accuracy"] == 1.0
    assert bundle.manifest.provenance["data"]["name"] == "x"


def test_progress_is_reported(few, registry, tmp_path, own_home):
    labels, said = [], []

    class Noting:
        def track(self, items, label, total=None):
            labels.append((label, total))
            yield from items

        def say(self, text):
            said.append(text)

    fit("tinynet", tmp_path / "x", data=few, epochs=2, registry=registry, progress=Noting())
    assert [label for label, _ in labels] == [*(f"features of {n}" for n in SPLITS), "fitting the head"]
    assert labels[-1][1] == 2
    assert said


# -- what is refused, before anything is written


@pytest.mark.parametrize(
    ("call", "kind", "text", "hint"),
    [
        ({"backbone": "tinynte"}, UnknownNameError, "no backbone is called 'tinynte'", "did you mean 'tinynet'?"),
        ({"head": "liner"}, UnknownNameError, "no head is called 'liner'", "did you mean 'linear'?"),
        ({"cut": "stag"}, UnknownNameError, "tinynet has no cut 'stag'", "stage1"),
        ({"data": "digit"}, UnknownNameError, "no dataset is called 'digit'", "did you mean 'digits'?"),
        ({"data": "no/such/folder"}, DataError, "there is no data set at", "check the path"),
        ({"head": "tinynet-fashion-mnist"}, HeadMismatchError, "is already trained", "--head linear"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_a_wrong_call_is_refused(registry, tmp_path, refused, few, call, kind, text, hint):
    arguments = {"backbone": "tinynet", "data": few, **call}
    with refused(kind, text, hint=hint):
        fit(arguments.pop("backbone"), tmp_path / "x", registry=registry, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_no_backbone(fitted, registry, tmp_path, refused, few):
    with refused(UnknownNameError, "is a bundle; fit takes a backbone", hint="--kind backbone"):
        fit(str(fitted.path), tmp_path / "x", data=few, registry=registry)


def test_a_head_that_does_not_fit_is_refused(tmp_path, refused, few):
    from types import ModuleType

    from pocketzoo.zoo.catalog.plugin_manager import create_manager
    from pocketzoo.zoo.catalog.registry import Registry
    from pocketzoo.zoo.catalog.specs import HeadSpec

    plugin = ModuleType("acme")
    spec = HeadSpec(name="tokens", summary="s", takes=("sequence",), task="*-classification", build=lambda f, n: None)
    plugin.pocketzoo_heads = pocketzoo.hookimpl(lambda: [spec])
    acme = Registry(create_manager(points=[], extra=[plugin]))
    with refused(
        HeadMismatchError, "'tokens' takes a sequence", "outputs a map", hint="heads that fit: embedding, linear, mlp"
    ):
        fit("tinynet", tmp_path / "x", data=few, head="tokens", registry=acme)


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8), dtype=np.uint8)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (from_arrays("one", ("a",), pixels(10), np.zeros(10, np.int64)), "one has one class, 'a'"),
        (from_arrays("bare", (), pixels(10), None), "bare has no classes"),
        (from_arrays("two", ("a", "b"), pixels(2), np.array([0, 1])), "the val split of two is empty"),
        (from_arrays("four", ("a", "b"), pixels(4), np.array([0, 0, 1, 1])), "the test split of four is empty"),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_data_that_cannot_be_learned_is_refused(registry, tmp_path, refused, data, text):
    with refused(DataError, text):
        fit("tinynet", tmp_path / "x", data=data, registry=registry)
    assert list(tmp_path.iterdir()) == []


def test_labels_without_targets_are_refused(registry, tmp_path, refused):
    splits = {name: Split(pixels(5)) for name in SPLITS}
    with refused(DataError, "the train split of odd has no targets"):
        fit("tinynet", tmp_path / "x", data=Dataset("odd", ("a", "b"), splits), registry=registry)


def test_arrays_of_another_shape_are_refused(registry, tmp_path, refused):
    np.savez(tmp_path / "x.npz", x=np.zeros((20, 3, 32, 32)), y=np.arange(20) % 2)
    with refused(DataError, "3 x 32 x 32", "1 x 28 x 28"):
        fit("tinynet", tmp_path / "x", data=load_data(tmp_path / "x.npz"), registry=registry)


@pytest.mark.parametrize(
    ("bad", "says"), [(math.nan, "non-finite"), (math.inf, "non-finite"), (255.0, "from 0 to 255; the model expects")]
)
def test_arrays_that_predict_refuses_are_refused(registry, tmp_path, refused, bad, says):
    data = from_arrays("bad", ("a", "b"), np.zeros((20, 1, 28, 28), np.float32), np.arange(20) % 2)
    data.split("train").samples[3] = bad
    with refused(DataError, says):
        fit("tinynet", tmp_path / "x", data=data, epochs=2, registry=registry)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_no_number_stops(registry, tmp_path, refused):
    x = np.random.default_rng(0).normal(size=(20, 1, 28, 28)).astype(np.float32)
    data = from_arrays("noise", ("a", "b"), x, np.arange(20) % 2)
    with refused(DataError, "not finite", hint="learning rate"):
        fit("tinynet", tmp_path / "x", data=data, epochs=5, batch_size=4, learning_rate=1e30, registry=registry)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "more",
    [{"epochs": 0}, {"epochs": -1}, {"batch_size": 0}, {"learning_rate": -1.0}, {"learning_rate": math.nan}],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(registry, tmp_path, few, more):
    with pytest.raises(PocketzooError, match=next(iter(more)).replace("_", ".")):
        fit("tinynet", tmp_path / "x", data=few, registry=registry, **more)
    assert list(tmp_path.iterdir()) == []


def test_all_images_unreadable_is_refused(photos, registry, tmp_path, refused):
    path = photos(tmp_path / "pets", {"cat": 5, "dog": 5})
    for file in path.rglob("*.png"):
        file.write_bytes(b"broken")
    with refused(DataError, "split of pets is empty"):
        fit("tinynet", tmp_path / "model", data=path, skip_bad=True, registry=registry)


# -- options of heads, other sizes, numbers


def test_options_travel_in_the_bundle(few, registry, tmp_path):
    options = {"hidden": "12,8", "activation": "tanh", "pool": "flatten", "dropout": 0.1}
    bundle = fit("tinynet", tmp_path / "x", data=few, head="mlp", head_options=options, epochs=2, registry=registry)
    wanted = {"pool": "flatten", "grid": 2, "hidden": [12, 8], "activation": "tanh", "dropout": 0.1}
    assert read_bundle(bundle.path).manifest.model.head_options == wanted
    head = load_module(bundle, registry).head
    assert head.hidden.in_features == 128 * 7 * 7
    assert (head.hidden_2.in_features, head.hidden_2.out_features) == (12, 8)
    assert isinstance(head.activation, torch.nn.Tanh)


def test_a_bundle_from_before_there_were_options_still_loads(small, registry, tmp_path):
    shutil.copytree(small.path, tmp_path / "old")
    path = tmp_path / "old" / "pocketzoo.json"
    data = json.loads(path.read_text())
    del data["model"]["head_options"], data["model"]["input_size"], data["returns"]
    path.write_text(json.dumps(data))
    old = read_bundle(path.parent)
    assert (old.manifest.task, old.manifest.model.head_options) == ("image-classification", {})
    assert equal(load_module(old, registry).state_dict(), load_module(small, registry).state_dict())
    mlp = registry.get("head", "mlp").build(FeatureSpec("vector", ("batch", 6)), 3)
    names = [name for name, _ in mlp.named_parameters()]
    assert names == ["hidden.weight", "hidden.bias", "linear.weight", "linear.bias"], "as in old bundles"


def test_images_of_another_size(few, registry, tmp_path):
    bundle = fit("tinynet", tmp_path / "x", data=few, cut="stage1", input_size=(20, 36), epochs=1, registry=registry)
    assert bundle.manifest.input.size == (1, 20, 36)
    assert bundle.manifest.model.input_size == (20, 36)
    with torch.no_grad():
        assert load_module(bundle, registry)(torch.zeros(2, 1, 20, 36)).shape == (2, 3)


def brightness() -> Dataset:
    """Images of one color each, and numbers that lie on a line over it."""
    generator = np.random.default_rng(0)
    shade = generator.uniform(-1, 1, 90).astype(np.float32)
    x = np.broadcast_to(shade[:, None, None, None], (90, 1, 28, 28)).copy()
    y = np.stack([1000 + 300 * shade, 0.01 * shade], 1).astype(np.float32)
    return from_arrays("shades", (), x, y)


def test_numbers_of_any_size_are_learned(registry, tmp_path):
    data = brightness()
    bundle = fit("tinynet", tmp_path / "x", data=data, head="regression", epochs=60, registry=registry)
    manifest = bundle.manifest
    assert (manifest.task, manifest.labels, manifest.model.outputs) == ("regression", (), 2)
    assert manifest.metrics["test_r2"] > 0.9
    assert manifest.metrics["val_r2"] == max(manifest.provenance["training"]["val_r2"])
    scores = evaluate(bundle.path, data=data, registry=registry)
    assert scores["r2"] == pytest.approx(manifest.metrics["test_r2"], abs=1e-4)
    np.savez(tmp_path / "d.npz", x=data.split("test").samples, y=data.split("test").targets)
    rows = pocketzoo.bench([bundle.path], data=tmp_path / "d.npz", batch_sizes=(1,), seconds=0, registry=registry)
    assert [(row.accuracy, row.agreement) for row in rows] == [(None, 1.0)]


def test_numbers_of_a_table_are_read(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"word {i},{i / 4}\n" for i in range(20)))
    data = load_data(tmp_path / "t.csv", targets="numbers")
    assert (data.labels, data.numeric) == ((), True)
    found = {t: float(y) for n in SPLITS for t, (y,) in zip(data.split(n).samples, data.split(n).targets, strict=True)}
    assert found == {f"word {i}": i / 4 for i in range(20)}
    assert not load_data(tmp_path / "t.csv").numeric


def npz(y: object) -> dict[str, np.ndarray]:
    return {"x": np.zeros((20, 1, 28, 28), np.float32), "y": np.asarray(y)}


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        (npz(["cat"] * 20), "x.npz are not numbers"),
        (npz(np.full(20, np.nan)), "x.npz has no label: nan"),
        (npz(np.zeros((20, 2, 2))), "shape (20, 2, 2) for 20 samples"),
        (npz(np.zeros(19)), "shape (19,) for 20 samples"),
        ({"x": npz(0)["x"]}, "x has no regression targets"),
    ],
)
def test_targets_that_are_no_numbers_are_refused(registry, tmp_path, refused, arrays, text):
    np.savez(tmp_path / "x.npz", **arrays)
    with refused(DataError, text):
        fit("tinynet", tmp_path / "out", data=tmp_path / "x.npz", head="regression", registry=registry)
    assert not (tmp_path / "out").exists()


def test_classes_are_no_numbers(few, registry, tmp_path, refused):
    with refused(DataError, "few has no regression targets", hint=".npz"):
        fit("tinynet", tmp_path / "out", data=few, head="regression", registry=registry)


@pytest.mark.parametrize(
    ("changes", "kind", "text", "hint"),
    [
        ({"head": "q-values"}, HeadMismatchError,
         "head 'q-values' is for reinforcement-learning, which fit cannot train",
         "heads that fit can train: linear, mlp, multi-label, regression"),
        ({"head": "embedding"}, HeadMismatchError, "no trainable parameters", "leave out --data"),
        ({"data": None}, DataError, "head 'linear' needs training data", "--data"),
        ({"head": "mlp", "head_options": {"hiden": 3}}, RecipeError, "no option 'hiden'", "did you mean 'hidden'?"),
        ({"head_options": {"pool": "cls"}}, HeadMismatchError, "a feature map has none", "pool: grid"),
        ({"input_size": 0}, RecipeError, "input_size cannot be 0", "pixels"),
        ({"input_size": (1, 2, 3)}, RecipeError, "input_size cannot be (1, 2, 3)", "pixels"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_is_said_before_data_is_read(registry, tmp_path, refused, changes, kind, text, hint):
    with refused(kind, text, hint=hint):
        fit("tinynet", tmp_path / "out", registry=registry, **{"data": tmp_path / "nowhere", **changes})


def test_a_head_with_nothing_to_learn_takes_no_data(registry, tmp_path):
    bundle = fit("tinynet", tmp_path / "out", head="embedding", head_options={"pool": "max"}, registry=registry)
    assert bundle.manifest.task == "feature-extraction"
    assert bundle.manifest.labels == ()
    model, x = load_module(bundle, registry), torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        features = model.backbone(x)
        wanted = torch.nn.functional.normalize(features.amax((2, 3)), dim=-1)
        assert torch.allclose(model(x), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("out", "wanted", "score"),
    [
        ([[1.0], [2.0], [3.0]], [[1.0], [2.0], [3.0]], 1.0),
        ([[2.0], [2.0], [2.0]], [[1.0], [2.0], [3.0]], 0.0),
        ([[3.0], [2.0], [1.0]], [[1.0], [2.0], [3.0]], -3.0),
        ([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]], [[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]], 1.0),
        ([[1.0, 4.0], [2.0, 5.0], [3.0, 5.0]], [[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]], 0.5),
    ],
)
def test_the_coefficient_of_determination(out, wanted, score):
    assert r2(np.array(out), np.array(wanted)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("backbone", "options", "changed"),
    [
        ("mlp", {}, True),
        ("mlp", {"hidden": (8,)}, True),
        ("mlp", {"input": (1, 28, 28)}, True),  # the default
        ("mlp", {"input": (3, 8, 8)}, False),
        ("mlp", {"input": (5,)}, False),
        ("tinynet", {}, False),
    ],
)
def test_a_backbone_is_made_for_rows_where_it_can_be_and_nobody_said_otherwise(backbone, options, changed, registry):
    spec = Resolver(registry).spec("backbone", backbone)
    asked = {**plain_options(spec, options)}
    ref = ModelRef(backbone=backbone, head="linear", outputs=2, backbone_options=asked)
    rows = {"input": (7,)} if changed else {}
    assert _for_rows(ref, 7, spec) == replace(ref, backbone_options={**asked, **rows})
