"""What speaks against int8 graphs that write. How they are made and write: tests/workflows/test_run_generation.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.pipeline.generation_graphs import Prompts, _against, _without
from pocketzoo.compress.pipeline.judge import SLACK
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.graphs.index import GraphIndex, quantizable
from pocketzoo.zoo.graphs.node import layer_name
from pocketzoo.zoo.models.resolver import Resolver

GOOD = {"bytes_before": 100, "bytes_after": 50, "agreement": 0.95, "ms_a_token_before": 2.0, "ms_a_token_after": 1.0}


@pytest.mark.parametrize(
    ("report", "max_drop", "keep_slower", "why"),
    [
        ({}, None, False, ""),
        ({}, 0.05, False, ""),
        ({"agreement": 0.9}, 0.05, False, "10.0% of the tokens change, at most 5.0% are allowed"),
        ({"agreement": 0.9}, 0.05, True, "10.0% of the tokens change, at most 5.0% are allowed"),
        ({"bytes_after": 101}, None, False, "larger: 100 -> 101 bytes"),
        ({"bytes_after": 101}, None, True, ""),
        ({"ms_a_token_after": 2.0 * SLACK + 0.1}, None, False, "slower: 2.00 -> 2.16 ms a token"),
        ({"ms_a_token_after": 2.0 * SLACK - 0.01}, None, False, ""),
        ({"ms_a_token_after": 9.0}, None, True, ""),
    ],
)
def test_what_speaks_against_them(report, max_drop, keep_slower, why):
    assert _against({**GOOD, **report}, max_drop, keep_slower) == why


def test_a_target_that_does_not_run_here_is_not_timed():
    report = {name: value for name, value in GOOD.items() if not name.startswith("ms")}
    assert _against(report, None, keep_slower=False) == ""


def test_a_classifier_writes_nothing(fitted, registry):
    assert not Resolver(registry).generates_text(fitted)


# -- what they are calibrated on


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
@pytest.mark.parametrize("family", ["gpt2", pytest.param("t5", marks=pytest.mark.slow)])
def test_parts_read_what_they_read_when_they_write(family, language_bundles):
    """A feed a text: a decoder reads all tokens at once, with nothing before them; behind an encoder, its answers."""
    bundle = read_bundle(language_bundles[family])
    texts = [np.array([ids], np.int64) for ids in ([2, 5, 6, 3], [2, 7, 3])]
    prompts, parts = Prompts(bundle, texts), bundle.parts()
    for part in parts:
        feeds = list(prompts.feeds(part))
        assert len(feeds) == len(list(prompts.feeds(part))) == len(texts), "iterable more than once"
        for feed, ids, number in zip(feeds, texts, range(len(texts)), strict=True):
            with OnnxRunner(parts[part], threads=1) as runner:
                assert set(feed) == set(runner.inputs)
                answers = runner.infer(feed)
            assert all(np.isfinite(array).all() for array in answers.values())
            past = {name: array.shape for name, array in feed.items() if name.startswith("past.")}
            assert bool(past) == (part == "decoder")
            assert all((shape[0], shape[2]) == (1, 0) for shape in past.values())
            if part == "decoder" and "encoder" in parts:
                start, answer = bundle.manifest.generation.start, prompts.answers[number]
                assert feed["input_ids"].tolist() == [[*start, *answer[:-1]]]
            else:
                assert feed["input_ids"].tolist() == ids.tolist()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_part_skips_what_it_has_of_the_layers_that_are_to_stay(language_bundles):
    """To name a layer that a graph lacks is an error, and the parts do not have the same."""
    model = onnx.load(read_bundle(language_bundles["gpt2"]).parts()["decoder"])
    first, second, *_ = (layer_name(node.input[1]) for node in quantizable(GraphIndex(model), ()))
    config = Int8Config(skip=(first, "elsewhere.*"), min_sqnr=20.0)
    assert _without(config, model, {second, "nowhere"}) == replace(config, skip=(first, second))
    other = object()
    assert _without(other, model, {first}) is other
