"""What speaks against int8 graphs that write. How they are made and write: tests/workflows/test_run_generation.py."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
import reports_of_before

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.pipeline.further_ends import against
from pocketzoo.compress.pipeline.graph_scores import SLACK
from pocketzoo.compress.quantization.skipped_layers import for_graph
from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.artifacts.generate import Generation
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.step_record import GenerationReport, StepRecord
from pocketzoo.zoo.graphs.index import GraphIndex, quantizable
from pocketzoo.zoo.graphs.node import layer_name
from pocketzoo.zoo.models.generation_graphs import with_generation_graphs
from pocketzoo.zoo.models.resolver import Resolver

WRITING = Generation(Artifact(graphs={}, driver="generate"))


def report_of(**facts) -> GenerationReport:
    return reports_of_before.report(generation={"cpu": facts}).generation["cpu"]


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
    found, cause = against(WRITING, report_of(**{**GOOD, **report}), max_drop, keep_slower=keep_slower)
    assert found == why
    assert cause == ("" if not why else "budget" if "tokens" in why else why.partition(":")[0])


def test_a_target_that_does_not_run_here_is_not_timed():
    report = report_of(**{name: value for name, value in GOOD.items() if not name.startswith("ms")})
    assert against(WRITING, report, None, keep_slower=False) == ("", "")


def test_a_classifier_writes_nothing(fitted, registry):
    assert not Resolver(registry).lacks_graphs(fitted)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_part_skips_what_it_has_of_the_layers_that_are_to_stay(language_bundles):
    """To name a layer that a graph lacks is an error, and the parts do not have the same."""
    model = onnx.load(read_bundle(language_bundles["gpt2"]).graphs("")["decoder"])
    first, second, *_ = (layer_name(node.input[1]) for node in quantizable(GraphIndex(model), ()))
    config = Int8Config(skip=(first, "elsewhere.*"), min_sqnr=20.0)
    assert for_graph(config, model) == replace(config, skip=(first,))
    assert for_graph(replace(config, skip=("nowhere", second)), model).skip == (second,)


# -- where a bundle has none yet


class Heard(Exception):  # noqa: N818 - ends the work where all that matters was said
    pass


class Until:
    """Progress that ends the work when it hears a word."""

    def __init__(self, word: str) -> None:
        self.word, self.said = word, []

    def track(self, items, label, total=None):
        yield from items

    def say(self, text: str) -> None:
        self.said.append(text)
        if self.word in text:
            raise Heard


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kinds", [(), ("int8",), ("distill", "int8")])
def test_float_graphs_of_a_model_in_int8_are_said_to_be_so(kinds, language_bundles, registry):
    bundle = read_bundle(language_bundles["gpt2"])
    files = {name: entry for name, entry in bundle.manifest.files.items() if not entry.graph}
    if "int8" in kinds:
        files["model.int8.cpu.onnx"] = replace(files["model.onnx"], target="cpu", precision="int8")
    steps = tuple(StepRecord(compressor=kind, config={}, plan={}) for kind in kinds)
    bare = replace(bundle, manifest=replace(bundle.manifest, files=files, driver="single", steps=steps))
    told = Until("float32" if "int8" in kinds else "exporting")
    with pytest.raises(Heard):
        with_generation_graphs(bare, registry, told)
    said = "they are float32; compress the model again to have them compressed too"
    assert told.said[0] == "exporting and checking the generation graphs (once)"
    assert told.said[1:] == [said] * ("int8" in kinds)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_cannot_write_is_refused_with_what_to_do(language_bundles, fitted, registry, refused):
    with refused(
        UnsupportedModelError, "is for image-classification and cannot generate text", hint="use a language model"
    ):
        with_generation_graphs(fitted, registry)
    bundle = read_bundle(language_bundles["gpt2"])
    files = {name: entry for name, entry in bundle.manifest.files.items() if not entry.graph}
    model = replace(bundle.manifest.model, head="embedding")
    of_another = replace(bundle.manifest, model=model, files=files, driver="single", returns="embedding")
    other = replace(bundle, manifest=of_another)
    with refused(UnsupportedModelError, "has a head that does not generate text", hint="--head language-model"):
        with_generation_graphs(other, registry)
    assert with_generation_graphs(bundle, registry) is bundle, "it has them"


@pytest.mark.parametrize(
    ("report", "max_drop", "why"),
    [
        ({"agreement": 0.75}, 0.25, ""),
        ({"agreement": 0.749}, 0.25, "25.1% of the tokens change, at most 25.0% are allowed"),
        ({"agreement": 1.0}, 0.0, ""),
        ({"agreement": 0.999}, 0.0, "0.1% of the tokens change, at most 0.0% are allowed"),
        ({"agreement": 0.0}, None, ""),
        ({"bytes_after": 100}, None, ""),
        ({"ms_a_token_after": 2.0 * SLACK}, None, ""),
        ({"bytes_after": 101, "ms_a_token_after": 9.0}, None, "larger: 100 -> 101 bytes"),
    ],
)
def test_what_is_just_allowed_does_not_speak_against_them(report, max_drop, why):
    assert against(WRITING, report_of(**{**GOOD, **report}), max_drop, keep_slower=False)[0] == why
