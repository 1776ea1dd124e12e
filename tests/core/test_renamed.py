"""Names of the previous release: each still works, warns with its new name, and is refused beside it."""

from __future__ import annotations

import inspect
import pickle
from contextlib import suppress
from dataclasses import replace
from importlib import import_module

import pytest

from pocketzoo.compress.configs import DistillConfig, HealConfig, LowRankConfig
from pocketzoo.compress.plans import DistillPlan
from pocketzoo.core.errors import RecipeError
from pocketzoo.core.renamed import RenamedWarning
from pocketzoo.core.typed import from_plain, from_texts, to_plain
from pocketzoo.plugins.head_options import EmbeddingOptions
from pocketzoo.plugins.mlp import PerceptronOptions
from pocketzoo.train.augment.specification import AugmentSpec, read_augment
from pocketzoo.train.settings import TrainConfig, with_settings
from pocketzoo.zoo.catalog.compressor import Distillation, Lesson, ModuleCompressor
from pocketzoo.zoo.catalog.plugin_manager import create_manager

FIELDS = [
    (DistillConfig, "quantised", "quantized", True),
    (LowRankConfig, "rank_share", "rank_fraction", 0.25),
    (TrainConfig, "optimiser", "optimizer", "sgd"),
    (PerceptronOptions, "standardise", "standardize", False),
    (EmbeddingOptions, "normalise", "normalize", False),
    (DistillPlan, "quantised", "quantized", True),
    (AugmentSpec, "colour", "color", 0.25),
]


@pytest.mark.parametrize(("cls", "old", "new", "value"), FIELDS)
def test_an_old_field_is_the_new_one(cls, old, new, value):
    expected = cls(**{new: value})
    with pytest.warns(RenamedWarning, match=f"'{old}' was renamed to '{new}'"):
        assert cls(**{old: value}) == expected
    with pytest.warns(RenamedWarning, match=f"'{old}' was renamed to '{new}'"):
        assert from_plain(cls, {old: value}) == expected
    with pytest.warns(RenamedWarning, match=f"'{old}' was renamed to '{new}'"):
        assert from_texts(cls, {old: str(value)}, "a test") == expected
    with pytest.warns(RenamedWarning, match=f"'{old}' was renamed to '{new}'"):
        assert getattr(expected, old) == value


@pytest.mark.parametrize(("cls", "old", "new", "value"), FIELDS)
def test_the_new_field_warns_of_nothing_and_is_all_that_is_written(cls, old, new, value):
    made = cls(**{new: value})
    assert to_plain(made)[new] == value
    assert old not in to_plain(made)
    assert replace(made) == made
    assert pickle.loads(pickle.dumps(made)) == made
    assert new in inspect.signature(cls).parameters
    assert old not in inspect.signature(cls).parameters


@pytest.mark.parametrize(("cls", "old", "new", "value"), FIELDS)
def test_both_names_at_once_are_refused(cls, old, new, value, refused):
    for build in (lambda d: cls(**d), lambda d: from_plain(cls, d)):
        with refused(RecipeError, f"'{old}' and '{new}' are the same field", hint=f"leave out '{old}'"):
            build({old: value, new: value})


def test_settings_take_the_old_name_as_the_command_line_gives_it():
    with pytest.warns(RenamedWarning, match="'optimiser' was renamed to 'optimizer'"):
        assert with_settings({"optimiser": "sgd"}, epochs=3) == TrainConfig(optimizer="sgd", epochs=3)


def test_a_wrong_value_of_an_old_name_is_refused_under_the_new_one(refused):
    with pytest.warns(RenamedWarning), refused(RecipeError, "option 'optimizer' of training cannot be 'adamax'"):
        with_settings({"optimiser": "adamax"})


def test_augment_takes_the_old_spelling():
    with pytest.warns(RenamedWarning, match="'colour' was renamed to 'color'"):
        assert read_augment("flip,colour:0.2") == AugmentSpec(flip=0.5, color=0.2)
    with pytest.warns(RenamedWarning), pytest.raises(RecipeError, match="augment has color more than once"):
        read_augment("color:0.1,colour:0.2")


def test_classes_have_their_old_names_too():
    assert HealConfig is DistillConfig
    assert Lesson is Distillation


def test_a_compressor_may_say_teach():
    def made(**changes):
        return ModuleCompressor(
            name="x", summary="x", config=DistillConfig, plan_type=DistillConfig, plan=print, apply=print, **changes
        )

    with pytest.warns(RenamedWarning, match="'teach' was renamed to 'distill'"):
        assert made(teach=repr).distill is repr
    with pytest.warns(RenamedWarning, match="'teach' was renamed to 'distill'"):
        assert made(distill=repr).teach is repr
    assert made().distill is None


KEYWORDS = [
    ("zoo.models.build", "build", "registry", "resolver"),
    ("zoo.models.build", "load_module", "registry", "resolver"),
    ("zoo.models.build", "load_pretrained", "registry", "resolver"),
    ("zoo.models.build", "resolve", "registry", "resolver"),
    ("zoo.models.generation_graphs", "with_generation_graphs", "registry", "resolver"),
    ("zoo.models.open_remote", "open_remote", "registry", "resolver"),
    ("zoo.models.hub_bundle", "unpack", "registry", "resolver"),
    ("zoo.models.import_onnx", "open_graph", "reading", "metadata"),
    ("zoo.models.heads", "build_head", "given", "values"),
    ("zoo.models.heads", "configured", "given", "values"),
    ("zoo.models.heads", "plain_options", "given", "values"),
    ("zoo.models.heads", "read_options", "given", "values"),
    ("zoo.catalog.plugin_manager", "create_manager", "found", "points"),
    ("zoo.data.processors.image_preprocessing", "prepare", "picture", "source"),
    ("zoo.data.processors.image_preprocessing", "read_image", "picture", "source"),
    ("zoo.tasks.agreement", "sqnr", "wanted", "reference"),
    ("deploy.export", "graph_for", "registry", "resolver"),
    ("deploy.fp8_export", "write_fp8", "registry", "resolver"),
    ("train.model_for_data", "asked_for", "registry", "resolver"),
    ("train.model_for_data", "task_of", "registry", "resolver"),
    ("train.optimizers", "set_rate", "optimiser", "optimizer"),
    ("train.snapshot", "load_optimizer", "optimiser", "optimizer"),
    ("train.snapshot", "optimizer_tensors", "optimiser", "optimizer"),
    ("compress.pruning.refit", "refit", "kept", "channels_left"),
]


@pytest.mark.parametrize(("module", "name", "old", "new"), KEYWORDS)
def test_an_argument_by_its_old_name_is_the_one_of_the_new(module, name, old, new):
    """Bound, not run: a call with that argument alone lacks others, unless it needs none."""
    function = getattr(import_module(f"pocketzoo.{module}"), name)
    assert new in inspect.signature(function).parameters
    assert old not in inspect.signature(function).parameters
    with pytest.warns(RenamedWarning, match=f"'{old}' was renamed to '{new}'"), suppress(Exception):
        function(**{old: None})
    with pytest.raises(TypeError, match="nonsense"):
        function(nonsense=1)
    with pytest.raises(TypeError, match=f"'{old}' and '{new}', which are the same argument"):
        function(**{old: None, new: None})


def test_a_manager_is_made_of_the_entry_points_that_it_is_given_by_the_old_name():
    with pytest.warns(RenamedWarning, match="'found' was renamed to 'points'"):
        assert create_manager(found=[]).hooks is not None
