"""Decoders: each output to its answer, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from pocketzoo.core.errors import DataError, RecipeError
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.tasks.decoders.classes import (
    ActionDecoder,
    PositionClassDecoder,
    SigmoidDecoder,
    SoftmaxDecoder,
    TokenClassDecoder,
)
from pocketzoo.zoo.tasks.decoders.configs import OutputConfig, PositionConfig, SigmoidConfig, TokenConfig, with_padding
from pocketzoo.zoo.tasks.decoders.vectors import EmbeddingDecoder, FirstTokenDecoder, NextTokenDecoder, ValuesDecoder

REGISTRY = Registry(create_manager(points=[]))
FIRST = OutputConfig()
IMAGE = InputSpec(shape=("batch", 1, 8, 8), mean=(0.0,), std=(1.0,), resize=8)
TEXT = TextSpec(vocabulary=9, pad=1, max_length=8)


def test_logits_become_the_likeliest_class_with_probabilities():
    answers = SoftmaxDecoder(FIRST)({"logits": np.log(np.array([[0.2, 0.8], [0.75, 0.25]], np.float32))}, {})
    np.testing.assert_array_equal(answers.classes, [1, 0])
    np.testing.assert_allclose(answers.probabilities, [[0.2, 0.8], [0.75, 0.25]], rtol=1e-6)
    assert len(answers) == 2


def test_whole_numbers_are_classes_already():
    answers = SoftmaxDecoder(FIRST)({"label": np.array([2, 0])}, {})
    np.testing.assert_array_equal(answers.classes, [2, 0])
    assert answers.scores is None
    assert answers.probabilities is None


def test_the_output_that_the_config_names_is_read(refused):
    outputs = {"boxes": np.zeros((1, 2), np.float32), "scores": np.array([[0.0, 9.0]], np.float32)}
    assert SoftmaxDecoder(OutputConfig(output="scores"))(outputs, {}).classes == [1]
    with refused(DataError, "no output 'score', which its decoder reads", hint="did you mean 'scores'"):
        SoftmaxDecoder(OutputConfig(output="score"))(outputs, {})


def test_labels_are_told_from_a_threshold_on():
    answers = SigmoidDecoder(SigmoidConfig(threshold=0.6))({"logits": np.array([[0.0, 1.0, 800.0, -800.0]])}, {})
    np.testing.assert_allclose(answers.probabilities, [[0.5, 1 / (1 + np.exp(-1)), 1.0, 0.0]], atol=1e-12)
    np.testing.assert_array_equal(answers.said, [[False, True, True, False]])


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0])
def test_a_threshold_is_within_0_and_1(threshold, refused):
    with refused(RecipeError, "SigmoidConfig.threshold cannot be", hint="above 0 and below 1"):
        SigmoidConfig(threshold=threshold)


def test_the_action_is_that_of_the_greatest_value():
    np.testing.assert_array_equal(ActionDecoder(FIRST)({"q": np.array([[1.0, -2.0], [0.0, 3.0]])}, {}).classes, [0, 1])


@pytest.mark.parametrize("decoder", [TokenClassDecoder, NextTokenDecoder])
def test_tokens_are_where_mask_or_padding_say(decoder):
    outputs = {"logits": np.zeros((2, 3, 5), np.float32)}
    ids = np.array([[4, 1, 5], [4, 1, 1]])
    mask = np.array([[1, 1, 1], [1, 0, 0]])
    known = [
        decoder(config)(outputs, inputs).known.sum(1).tolist()
        for config, inputs in (
            (TokenConfig(), {"input_ids": ids}),
            (TokenConfig(pad=1), {"input_ids": ids}),
            (TokenConfig(pad=1), {"input_ids": ids, "attention_mask": mask}),
            (TokenConfig(pad=1), {}),
            (TokenConfig(pad=1, ids="ids"), {"other": mask, "ids": ids}),
        )
    ]
    assert known == [[3, 3], [2, 1], [3, 1], [3, 3], [2, 1]]


def test_a_config_is_completed_by_the_padding_of_the_input():
    assert with_padding(TokenConfig(), TEXT).pad == 1
    assert with_padding(TokenConfig(pad=7), TEXT).pad == 7
    assert with_padding(TokenConfig(), IMAGE).pad is None


def test_vectors_stay_as_they_are():
    out = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(ValuesDecoder(FIRST)({"out": out}, {}).values, out)
    np.testing.assert_array_equal(EmbeddingDecoder(FIRST)({"out": out}, {}).vectors, out)
    first = FirstTokenDecoder(FIRST)({"out": out}, {})
    np.testing.assert_array_equal(first.best, [[2], [2]])


@pytest.mark.parametrize(
    ("decoder", "out"),
    [
        (SoftmaxDecoder(FIRST), np.zeros((2, 3, 4), np.float32)),
        (SoftmaxDecoder(FIRST), np.zeros((2, 1), np.float32)),
        (SoftmaxDecoder(FIRST), np.zeros((2, 3), np.int64)),
        (SigmoidDecoder(SigmoidConfig()), np.zeros(2, np.float32)),
        (ValuesDecoder(FIRST), np.zeros((2, 3), np.int64)),
        (EmbeddingDecoder(FIRST), np.zeros((2, 3, 4), np.float32)),
        (TokenClassDecoder(TokenConfig()), np.zeros((2, 3), np.float32)),
        (NextTokenDecoder(TokenConfig()), np.zeros((2, 3), np.float32)),
        (PositionClassDecoder(PositionConfig()), np.zeros((2, 3), np.float32)),
        (PositionClassDecoder(PositionConfig(axis=3)), np.zeros((2, 3, 4), np.float32)),
        (PositionClassDecoder(PositionConfig()), np.zeros((2, 3, 4), np.int64)),
    ],
)
def test_an_output_of_another_shape_or_type_is_refused(decoder, out, refused):
    with refused(DataError, f"the output is {out.dtype} of shape", hint="another decoder"):
        decoder({"out": out}, {})
    with refused(DataError, "no outputs", hint="decode"):
        decoder({}, {})


def test_every_decoder_is_of_tasks_that_are_registered_and_opens_with_its_defaults():
    tasks, decoders = REGISTRY.entries("task"), REGISTRY.entries("decoder")
    for entry in decoders.values():
        assert set(entry.spec.tasks) <= set(tasks), entry.name
        assert callable(entry.spec.open(entry.spec.config()))
        assert entry.spec.reads(entry.spec.config()) == ("",)
    for entry in tasks.values():
        assert entry.name in decoders[entry.spec.decoder].spec.tasks


@pytest.mark.parametrize(
    ("shape", "axis", "samples"),
    [((2, 5, 3, 4), 1, 0), ((2, 3, 4, 5), 3, 0), ((2, 7, 5), 2, 0), ((7, 2, 5), 2, 1), ((5, 7, 2), 0, 2)],
)
def test_classes_are_told_apart_at_each_position_along_any_axis(shape, axis, samples):
    out = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    answers = PositionClassDecoder(PositionConfig(axis=axis, samples=samples))({"y": out}, {})
    best = np.moveaxis(out.argmax(axis), samples - (axis < samples), 0)
    np.testing.assert_array_equal(answers.best, best.reshape(2, -1))
    assert answers.known.all()
    assert answers.scores.shape[-1] == 5


@pytest.mark.parametrize("axes", [{"axis": -1}, {"axis": 0}, {"samples": -1}, {"axis": 2, "samples": 2}])
def test_axes_that_cannot_be_are_refused(axes):
    with pytest.raises(RecipeError):
        PositionConfig(**axes)
