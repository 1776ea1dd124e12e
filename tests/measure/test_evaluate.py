from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from feeds import arrays
from feeds import only as answered

import pocketzoo
from pocketzoo.core.errors import BundleError, DataError, UnknownNameError
from pocketzoo.measure.evaluate import evaluate
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.catalog.dataset import Dataset, Split
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.open_processor import processor_of


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits")


@pytest.fixture(scope="module")
def answers(fitted, digits) -> tuple[np.ndarray, np.ndarray]:
    """What the model says to each test sample, and what is right."""
    x, y = next(iter(arrays(Batches(digits.split("test"), fitted.manifest.input, size=1000))))
    with OnnxRunner(fitted.graph("")) as runner:
        return answered(runner, x).argmax(1), y


def only(data: Dataset, wanted: tuple[str, ...]) -> Dataset:
    """The samples of these classes, numbered in this order."""
    numbers = [data.labels.index(w) for w in wanted]
    splits = {}
    for name, split in data.splits.items():
        keep = np.isin(split.targets, numbers)
        splits[name] = Split(split.samples[keep], np.array([numbers.index(t) for t in split.targets[keep]], np.int64))
    return Dataset("some", wanted, splits, data.seed)


def test_scores_are_those_of_a_recount(fitted, digits, answers):
    said, right = answers
    found = evaluate(fitted.path, data=digits)
    assert found["accuracy"] == pytest.approx(np.mean(said == right), abs=1e-12)
    assert found["samples"] == len(right) == len(digits.split("test"))
    assert found["classes"] == {str(c): pytest.approx(np.mean(said[right == c] == c)) for c in range(10)}
    assert (found["bundle"], found["graph"]) == (fitted.manifest.name, "model.onnx")
    assert (found["data"], found["split"], found["skipped"]) == ("digits", "test", 0)
    assert found["accuracy"] == pytest.approx(fitted.manifest.metrics["test_accuracy"], abs=1.5 / len(right))


def test_the_name_of_a_data_set_is_enough(fitted, digits):
    assert evaluate(fitted.path, data="digits") == evaluate(fitted.path, data=digits)
    assert pocketzoo.eval(fitted.path, data="digits") == evaluate(fitted.path, data=digits)


@pytest.mark.parametrize("classes", [("3",), ("0", "1", "2"), ("7", "2"), tuple("9876543210"), ("5", "0", "9", "1")])
def test_some_of_the_classes_in_any_order(classes, fitted, digits, answers):
    """Folders of a test set sort as they like; what counts is their names."""
    said, right = answers
    found = evaluate(fitted.path, data=only(digits, classes))
    among = np.isin(right, [int(c) for c in classes])
    assert found["samples"] == among.sum()
    assert found["accuracy"] == pytest.approx(np.mean(said[among] == right[among]))
    assert set(found["classes"]) == set(classes)
    for c in classes:
        assert found["classes"][c] == pytest.approx(np.mean(said[right == int(c)] == int(c)))


def test_classes_that_are_none_of_the_models_are_refused(fitted, digits, refused):
    strange = replace(digits, labels=tuple("abcdefghij"))
    with refused(
        DataError, "has no targets for image-classification with the model's labels", "0, 1, 2", hint="pocketzoo info"
    ):
        evaluate(fitted.path, data=strange)


def test_one_class_too_many_is_refused_with_its_name(fitted, digits, refused):
    other = replace(digits, labels=(*"012345678", "nine"))
    with refused(DataError, "classes unknown to the model: nine"):
        evaluate(fitted.path, data=other)


def test_data_without_classes_is_refused(fitted, digits, refused):
    bare = Dataset("bare", (), {k: Split(s.samples) for k, s in digits.splits.items()})
    with refused(DataError, "bare", hint="class folders"):
        evaluate(fitted.path, data=bare)


def test_a_test_split_that_is_empty_is_refused(fitted, digits, refused):
    """Three images are all in train and val: there is no accuracy of nothing."""
    empty = Split(digits.split("test").samples[:0], digits.split("test").targets[:0])
    with refused(DataError, "test"):
        evaluate(fitted.path, data=replace(digits, splits={**digits.splits, "test": empty}))


@pytest.mark.parametrize("target", ["cpu", "tensorrt-rtx"])
def test_the_graph_of_the_target_is_the_one_that_is_scored(target, compressed, digits):
    found = evaluate(compressed.path, data=digits, target=target)
    assert found["graph"] == f"model.int8.{target}.onnx"
    row = next(r for r in compressed.manifest.measurements if r.target == target)
    assert found["accuracy"] == pytest.approx(row.accuracy)
    batches = Batches(digits.split("test"), processor_of(compressed))
    with OnnxRunner(compressed.graph("")) as whole, OnnxRunner(compressed.graph(target)) as small:
        a, b = (np.concatenate([each.infer(x)["logits"] for x, _ in batches]) for each in (whole, small))
    assert found["outputs"] == {"logits": pytest.approx(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()), abs=1e-3)}


def test_a_target_without_a_graph_of_its_own_runs_the_float_one(compressed, digits):
    found = evaluate(compressed.path, data=digits, target="tensorrt")
    assert found["graph"] == "model.onnx"
    assert "outputs" not in found


@pytest.mark.parametrize(("typo", "near"), [("tensorrt-rxt", "tensorrt-rtx"), ("cup", "cpu")])
def test_a_target_that_does_not_exist_is_refused(typo, near, compressed, digits, refused):
    """Silently scoring the float graph would report a number nobody asked for."""
    with refused(UnknownNameError, f"{typo!r}", hint=near):
        evaluate(compressed.path, data=digits, target=typo)


def test_a_registered_model_is_scored_by_name(digits, refused):
    """tinynet's own classes are clothing, not digits."""
    with refused(DataError, "t-shirt"):
        evaluate("tinynet", data=digits)


@pytest.mark.parametrize("model", ["/nowhere/bundle", "tinynte"])
def test_a_model_that_does_not_exist_is_refused(model, digits, refused):
    with refused(BundleError if "/" in model else UnknownNameError, model):
        evaluate(model, data=digits)


def test_images_are_read_and_bad_ones_counted(fitted, photos, tmp_path, refused):
    folder = photos(tmp_path / "data", {str(i): 5 for i in range(10)})
    bad = load_data(folder).split("test").samples[4]
    bad.write_bytes(b"no image")
    with refused(DataError, str(bad), hint="--skip-bad"):
        evaluate(fitted.path, data=folder)
    found = evaluate(fitted.path, data=folder, skip_bad=True)
    assert (found["samples"], found["skipped"]) == (9, 1)


def test_the_seed_decides_the_division(fitted, photos, tmp_path):
    folder = photos(tmp_path / "data", {str(i): 10 for i in range(10)})
    found = [evaluate(fitted.path, data=folder, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1]
    names = [{str(p) for p in load_data(folder, seed=s).split("test").samples} for s in (0, 1)]
    assert names[0] != names[1]
