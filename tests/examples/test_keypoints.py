"""The example plugin in examples/keypoints: a task that the core does not know, from fit to the report."""

from __future__ import annotations

import ast
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import pocketzoo
from pocketzoo.compress.configs import Int8Config
from pocketzoo.core.errors import DataError, HeadMismatchError, MissingPluginError, RecipeError
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import FeatureSpec

pytest.importorskip("skimage", reason="the photographs are scikit-image's")
PLACE = Path(__file__).parents[2] / "examples" / "keypoints"
sys.path.insert(0, str(PLACE))

import pocketzoo_keypoints as plugin  # noqa: E402
from pocketzoo_keypoints.module import KeypointHead, KeypointTraining  # noqa: E402
from pocketzoo_keypoints.photos import NAMES, faces  # noqa: E402
from pocketzoo_keypoints.task import KeypointAgreement, KeypointDecoder, Keypoints, KeypointScores  # noqa: E402

REGISTRY = Registry(create_manager(points=[], extra=[plugin]))
FEW = 80  # views of each face: enough to learn where eyes and noses are of two photos


@pytest.fixture(scope="module")
def photos():
    return faces(FEW)


@pytest.fixture(scope="module")
def fitted(photos, tmp_path_factory):
    return pocketzoo.fit(
        "tinynet", tmp_path_factory.mktemp("keypoints") / "points", data=photos, head="keypoints", input_size=56,
        cut="stage1", epochs=16, batch_size=16, unfreeze="all", training={"backbone_rate": 1.0}, registry=REGISTRY,
    )  # fmt: skip


def test_it_imports_nothing_else():
    known = {"pocketzoo.api", "pocketzoo_keypoints", "numpy", "torch", "skimage", "__future__"}
    for path in PLACE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                root = name.split(".")[0]
                assert name == "pocketzoo.api" or root in known or root in sys.stdlib_module_names, (path, name)


def test_the_core_does_not_know_it():
    words = ("keypoint", "pck", "places-and-visibility")
    for path in Path(pocketzoo.__file__).parent.rglob("*.py"):
        assert not any(word in path.read_text("utf8").lower() for word in words), path


def test_a_place_is_where_the_warp_carried_it(photos):
    """The pupil of the cat is the darkest spot of its eye, wherever the view has it."""
    for split in photos.splits.values():
        assert split.samples.shape[1:] == (56, 56, 3)
        there = split.targets[..., 2] > 0
        assert ((split.targets[..., :2] > 0) & (split.targets[..., :2] < 1)).all(-1)[there].all()
        assert (split.targets[..., :2][~there] == 0).all()
    faces_there = photos.split("train").targets[..., 2].any(1).mean()
    assert 0.5 < faces_there < 0.8
    assert photos.labels == NAMES


def test_pck_counts_what_is_near_of_what_is_there():
    places = np.array([[[0.5, 0.5], [0.2, 0.2]], [[0.9, 0.9], [0.1, 0.1]]])
    answers = Keypoints(places, np.array([[0.9, 0.9], [0.9, 0.1]]))
    targets = np.array([[[0.55, 0.5, 1], [0.5, 0.2, 1]], [[0.9, 0.85, 1], [0, 0, 0]]])
    whole, left, right = KeypointScores(), KeypointScores(), KeypointScores()
    whole.update(answers, targets)
    for part, rows in ((left, slice(0, 1)), (right, slice(1, 2))):
        part.update(Keypoints(places[rows], answers.visible[rows]), targets[rows])
    left.merge(right)
    assert left == whole
    found = whole.result()
    assert found["pck"].value == 2 / 3
    assert found["pck"].low < 2 / 3 < found["pck"].high
    assert found["visibility"].value == 1.0


def test_models_agree_on_what_both_see_at_one_place():
    places = np.array([[[0.5, 0.5], [0.2, 0.2]]])
    one, agreement = Keypoints(places, np.array([[0.9, 0.1]])), KeypointAgreement()
    agreement.update(Keypoints(places + np.array([[[0.05, 0.0], [0.7, 0.7]]]), np.array([[0.9, 0.1]])), one)
    assert agreement.result()["agreement"].value == 1.0, "where neither is seen the place does not matter"
    agreement.update(Keypoints(places + np.array([[[0.2, 0.0], [0.0, 0.0]]]), np.array([[0.9, 0.9]])), one)
    assert agreement.result()["agreement"].value == 0.5


def test_the_head_gives_two_outputs_and_a_place_is_a_mean_of_positions():
    torch.manual_seed(0)
    head = KeypointHead(FeatureSpec("map", ("batch", 8, 5, 7)), 3).eval()
    with torch.no_grad():
        out = head(torch.randn(2, 8, 5, 7))
    assert {name: tuple(value.shape) for name, value in out.items()} == {"places": (2, 3, 2), "visibility": (2, 3)}
    assert ((out["places"] > 0) & (out["places"] < 1)).all()
    peak = torch.full((1, 1, 35), -50.0)
    peak[..., 9] = 50.0  # row 1, column 2
    assert torch.allclose(peak.softmax(-1) @ head.positions, torch.tensor([[[2.5 / 7, 1.5 / 5]]]), atol=1e-6)


def test_the_loss_does_not_look_at_places_that_are_not_there():
    training = KeypointTraining()
    outputs = {"places": torch.tensor([[[0.5, 0.5], [0.9, 0.9]]]), "visibility": torch.tensor([[8.0, -8.0]])}
    targets = torch.tensor([[[0.5, 0.5, 1.0], [0.0, 0.0, 0.0]]])
    assert float(training.loss(outputs, targets)) == pytest.approx(0.0, abs=1e-2)
    assert float(training.weight(targets)) == 2.0


@pytest.mark.parametrize("shape", [((2, 3, 2), (2, 4)), ((2, 3), (2, 3)), ((2, 3, 3), (2, 3))])
def test_outputs_of_other_shapes_are_refused(shape, refused):
    outputs = {name: np.zeros(of, np.float32) for name, of in zip(("places", "visibility"), shape, strict=True)}
    with refused(DataError, "the places are", hint="(B, K, 2)"):
        KeypointDecoder(plugin.KeypointConfig())(outputs, {})


def test_keypoints_go_with_their_image_and_are_not_visible_outside_of_it():
    shift = torch.eye(3).repeat(2, 1, 1)
    shift[1, 0, 2] = 0.25
    targets = torch.tensor([[[0.5, 0.25, 1.0], [0.875, 0.5, 1.0], [0.0, 0.0, 0.0]]] * 2)
    moved = KeypointTraining().move(targets, shift)
    assert torch.equal(moved[0], targets[0])
    assert torch.equal(moved[1], torch.tensor([[0.75, 0.25, 1.0], [1.125, 0.5, 0.0], [0.25, 0.0, 0.0]]))


def test_a_fit_augments_images_with_their_keypoints(photos, tmp_path):
    small = replace(photos, splits={name: split.take(np.arange(16)) for name, split in photos.splits.items()})
    bundle = pocketzoo.fit("tinynet", tmp_path / "m", data=small, head="keypoints", cut="stage1", input_size=56,
                           epochs=1, training={"augment": "rotate:10,zoom:0.1"}, registry=REGISTRY)  # fmt: skip
    assert bundle.manifest.metrics["test_pck"] >= 0


def test_a_mirror_image_is_refused(photos, tmp_path, refused):
    """A left eye would be the right one."""
    with refused(RecipeError, "flip would move things, and targets of keypoint-detection say where they are",
                 hint="leave it out; rotate, shift, shear, zoom, color and hue work"):  # fmt: skip
        pocketzoo.fit("tinynet", tmp_path / "m", data=photos, head="keypoints", training={"augment": "flip"},
                      registry=REGISTRY)  # fmt: skip


def test_vectors_have_no_places(refused):
    with refused(HeadMismatchError, "is not a map"):
        KeypointHead(FeatureSpec("vector", ("batch", 8)), 3)


@pytest.mark.slow
def test_it_is_fitted_and_scored_by_pck(fitted, photos):
    manifest = fitted.manifest
    assert (manifest.task, manifest.decoder.name) == ("keypoint-detection", "places-and-visibility")
    assert [tensor.name for tensor in manifest.signature.outputs] == ["places", "visibility"]
    found = pocketzoo.eval(fitted.path, data=photos, registry=REGISTRY)
    chance = REGISTRY.get("task", "keypoint-detection").open().chance(photos.split("test").targets)
    assert found["metric"] == "pck"
    assert found["pck"] > chance + 0.3
    assert found["pck"] == pytest.approx(manifest.metrics["test_pck"], abs=0.02)
    low, high = found["intervals"]["pck"]
    assert low < found["pck"] < high


@pytest.mark.slow
def test_a_budget_holds_pck(fitted, photos, tmp_path):
    small = pocketzoo.compress(fitted.path, tmp_path / "small", data=photos, steps=[Int8Config()],
                               max_drop=0.05, keep_slower=True, registry=REGISTRY)  # fmt: skip
    (step,) = small.manifest.steps
    assert step.report.metric.name == "pck"
    assert step.report.metric.before - step.report.metric.after <= 0.05
    assert set(step.report.outputs) == {"places", "visibility"}
    assert {"test_pck_float", "test_pck_cpu"} <= set(small.manifest.metrics)
    rows = pocketzoo.bench([fitted.path, small.path], data=photos, seconds=0.0, save=True, registry=REGISTRY)
    assert [row.metric.name for row in rows] == ["pck"] * 2
    assert rows[1].about.startswith("the same places for ")
    page = pocketzoo.report([small.path], tmp_path / "r.html", data=photos, registry=REGISTRY).read_text("utf8")
    assert page.count('class="keypoints"') > 0
    assert "pck" in page
    from PIL import Image

    Image.fromarray(photos.split("test").samples[0]).save(tmp_path / "photo.png")
    (found,) = pocketzoo.predict(small.path, [tmp_path / "photo.png"], registry=REGISTRY)
    assert [each["name"] for each in found.answer["keypoints"]] == list(NAMES)
    assert pocketzoo.export(small.path, to="onnx", out=tmp_path / "m.onnx", registry=REGISTRY).is_file()


@pytest.mark.slow
def test_without_the_plugin_it_is_said_what_is_missing(fitted, photos, refused):
    bare = Registry(create_manager(points=[]))
    with refused(MissingPluginError, "keypoint-detection"):
        pocketzoo.eval(fitted.path, data=replace(photos), registry=bare)
