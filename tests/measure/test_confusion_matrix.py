"""Answers on labeled data, against the graph's own; and the part of the report that shows them."""

from __future__ import annotations

import io
import re
from base64 import b64decode

import numpy as np
import pytest
from feeds import arrays, only
from PIL import Image
from scoring import task

import pocketzoo
from pocketzoo.core.errors import DataError
from pocketzoo.measure import confusion_matrix as module
from pocketzoo.measure.confusion_matrix import Answers, measure_confusion
from pocketzoo.reports.confusion_section import MOST, answers_section, drawn
from pocketzoo.reports.report import report
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.metric_value import MetricValue
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.catalog.task import Estimate
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.tasks.drawing import LETTERS, SIDE, shown


def thumbnails(page: str) -> list[str]:
    return re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits")


@pytest.fixture(scope="module")
def found(compressed, digits) -> Answers:
    return measure_confusion(compressed, digits)


def test_they_are_those_of_the_graph(compressed, digits, found):
    split = digits.split("test")
    with OnnxRunner(compressed.graph("cpu")) as runner:
        said = np.concatenate([only(runner, x).argmax(1) for x, _ in arrays(Batches(split, compressed.manifest.input))])
    wanted = np.zeros((10, 10), np.int64)
    np.add.at(wanted, (split.targets, said), 1)
    np.testing.assert_array_equal(found.confusion, wanted)
    assert found.wrong == (said != split.targets).sum() > 0
    assert found.samples == len(split)
    pairs = [
        f'{t}</span> <span class="taken-for">predicted <b>{s}</b>'
        for t, s in zip(split.targets, said, strict=True)
        if t != s
    ]
    assert sorted(re.search(r'"label">(\d</span> .*</b>)', each).group(1) for each in found.drawn) == sorted(pairs)
    sure = [int(re.search(r"</b> (\d+)%", each).group(1)) for each in found.drawn]
    assert sure == sorted(sure, reverse=True)
    scores = pocketzoo.eval(compressed.path, data=digits)
    assert scores["accuracy"] == pytest.approx(1 - found.wrong / len(split)) == found.metric.value
    assert found.results["accuracy"].low < found.metric.value < found.results["accuracy"].high


def test_the_surest_are_kept_where_there_are_many(compressed, digits, found, monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    assert measure_confusion(compressed, digits).drawn == found.drawn[:3]


def test_a_thumbnail_is_the_sample_small(found):
    with Image.open(io.BytesIO(b64decode(thumbnails(found.drawn[0])[0]))) as image:
        assert (image.format, max(image.size)) == ("JPEG", SIDE)


def test_files_are_named_and_broken_ones_left_out(compressed, photos, tmp_path, refused):
    folder = photos(tmp_path / "d", {"3": 20, "8": 20}, size=(28, 28), mode="L")
    test = load_data(folder).split("test").samples
    whole = measure_confusion(compressed, load_data(folder))
    assert all(re.search(r'alt="[38]/\d+\.png"', each) for each in whole.drawn)
    test[1].write_bytes(b"no image")
    with refused(DataError, "cannot read the image"):
        measure_confusion(compressed, load_data(folder))
    left = measure_confusion(compressed, load_data(folder), skip_bad=True)
    assert left.confusion.sum() == whole.confusion.sum() - 1
    name = f"{test[1].parent.name}/{test[1].name}"
    assert set(left.drawn) == {each for each in whole.drawn if name not in each}


def test_data_without_the_models_classes_is_refused(compressed, photos, tmp_path, refused):
    with refused(DataError, "no classes in common"):
        measure_confusion(compressed, load_data(photos(tmp_path / "p", {"cat": 5, "dog": 5})))


def test_the_page_has_curves_a_grid_and_thumbnails(compressed, digits, found, tmp_path):
    page = report([compressed.path], tmp_path / "r.html", data=digits).read_text("utf8")
    training = compressed.manifest.provenance["training"]
    for key in ("loss", "val_accuracy"):
        keyed = re.findall(rf'data-key="provenance\.training\.{key}\.\d+" data-value="([^"]+)"', page)
        assert set(map(repr, training[key])) <= set(keyed), "every epoch has its mark"
    images = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert images == [image for each in found.drawn for image in thumbnails(each)]
    wrong = found.confusion - np.diag(found.confusion.diagonal())
    for row, column in np.argwhere(wrong):
        assert f"{row}, predicted {column}: {wrong[row, column]} of {found.confusion[row].sum()}" in page
    assert "Misclassified samples" not in report([compressed.path], tmp_path / "r.html").read_text("utf8")


def test_texts_are_shown_as_texts_and_markup_as_text():
    hostile = "<script>alert(1)</script>"
    labels = ("a", hostile)
    answer = {"top": [{"label": hostile, "probability": 0.9}]}
    made = Answers(
        data="d",
        task="text-classification",
        samples=8,
        metric=MetricValue(name="accuracy", value=7 / 8),
        results={"accuracy": Estimate(7 / 8, 0.5, 0.98)},
        labels=labels,
        confusion=np.array([[3, 1], [0, 4]]),
        wrong=1,
        drawn=(task("text-classification", labels).draw(hostile, answer, 0),),
    )
    page = answers_section(made, hostile, "x")
    assert "<script>" not in page
    assert page.count("&lt;script&gt;") >= 3
    assert 'class="mistakes texts"' in page
    assert "7 of 8" in page
    assert "0.5 to 0.98" in page


def test_numbers_are_shown_with_their_errors(regression):
    found = measure_confusion(*regression)
    assert (found.confusion, found.metric.name) == (None, "r2")
    page = answers_section(found, "model", "x")
    assert "Answers that are furthest from right" in page
    assert "95% interval" in page


@pytest.fixture
def regression(small_registry, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=x.mean((1, 2, 3)))
    data = load_data(tmp_path / "d.npz", targets="numbers")
    bundle = pocketzoo.fit("smallnet", tmp_path / "m", data=data, head="regression", epochs=2, registry=small_registry)
    return bundle, data


def test_with_many_classes_those_with_mistakes_are_drawn():
    confusion = np.diag(np.full(50, 10))
    confusion[[7, 30, 45], [8, 31, 45]] += [5, 4, 9]
    shown = drawn(confusion)
    assert len(shown) == MOST
    assert shown == sorted(shown)
    assert {7, 8, 30, 31} <= set(shown)
    assert drawn(np.eye(5, dtype=int)) == [0, 1, 2, 3, 4]


def test_long_texts_are_cut():
    text, image = shown("word " * 100)
    assert len(text) == LETTERS + 1
    assert not image
    assert shown(np.zeros((3, 4), np.float32)) == ("", "")
