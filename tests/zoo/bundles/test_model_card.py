from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pocketzoo.core.errors import PocketzooError
from pocketzoo.core.untrusted import shown as escapes
from pocketzoo.zoo.bundles.manifest import Manifest, ModelRef, read_manifest
from pocketzoo.zoo.bundles.measured_on import RANDOM, Machine, MeasuredOn
from pocketzoo.zoo.bundles.measurement import Measurement
from pocketzoo.zoo.bundles.metric_value import MetricValue
from pocketzoo.zoo.bundles.model_card import model_card
from pocketzoo.zoo.bundles.step_record import StepRecord
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.processors.open_processor import describe_config

MANIFEST = Manifest(
    name="flowers",
    model=ModelRef(backbone="tinynet", head="linear", outputs=5, cut="stage1"),
    processor=describe_config(InputSpec(shape=("batch", 1, 28, 28), mean=(0.5,), std=(0.5,), resize=28)),
    labels=("a", "b", "c", "d", "e"),
    license="MIT",
    parameters=362208,
    macs=37160448,
    steps=(StepRecord(compressor="prune", config={}, plan={}), StepRecord(compressor="int8", config={}, plan={})),
    metrics={"test_accuracy": 0.9721, "val_accuracy": 0.975, "confusion": [[1, 2], [3, 4]]},
)


def front_matter(card: str) -> dict:
    """As the Hub finds it, and PyYAML reads it."""
    return yaml.safe_load(REGEX_YAML_BLOCK.search(card).group(2))


def test_the_front_matter_is_what_the_hub_reads():
    assert front_matter(model_card(MANIFEST)) == {
        "license": "mit",
        "library_name": "pocketzoo",
        "pipeline_tag": "image-classification",
    }


@pytest.mark.parametrize(
    "text",
    [
        "# flowers\n",
        "`tinynet`",
        "cut after `stage1`",
        "head `linear`",
        "5 classes",
        "image batch x 1 x 28 x 28 float32, by the processor `image`",
        "parameters: 362,208;",
        "per sample: 37,160,448",
        "compressed by: prune, int8",
        "- test_accuracy: 0.9721",
        "pocketzoo predict . PHOTO.jpg",
    ],
)
def test_the_card_says(text):
    assert text in model_card(MANIFEST)


def rows(data: str, sha256: str = "", date: str = "2026-11-29") -> tuple[Measurement, ...]:
    measured = MeasuredOn(machine=Machine(cpu="x", cores=2), date=date, data=data, sha256=sha256)
    common = {"bundle": "flowers", "runtime": "onnxruntime", "bytes": 1, "parameters": 1, "macs": 1, "samples": 64}
    metric = MetricValue(name="accuracy", value=0.75) if sha256 else None
    float32 = Measurement(
        **common, target="", precision="float32", agreement=1.0, sqnr=None, metric=metric, measured=measured
    )
    return float32, replace(float32, target="cpu", precision="int8", agreement=0.9, sqnr=21.25)


@pytest.mark.parametrize(
    ("measurements", "said"),
    [
        ((), []),
        (
            rows("leaves*", "1" * 64),
            [
                "- measured: float32: accuracy 0.75, on 64 samples of leaves\\*",
                "- measured: int8 for cpu: accuracy 0.75, agreement 0.900, SQNR 21.2 dB, on 64 samples of leaves\\*",
            ],
        ),
        (rows(RANDOM), ["- measured: int8 for cpu: agreement 0.900, SQNR 21.2 dB, on 64 random samples"]),
        (rows(""), ["- measured: int8 for cpu: agreement 0.900, SQNR 21.2 dB, on 64 random samples"]),
    ],
    ids=["nothing", "data", "random", "random, of before"],
)
def test_measurements_say_what_they_are_of(measurements, said):
    def shown(rows):
        card = model_card(replace(MANIFEST, measurements=rows))
        return [line for line in card.splitlines() if line.startswith("- measured")]

    assert shown(measurements) == said
    later = rows(RANDOM, date="2026-11-30")
    assert shown((*measurements, *later)) == (said or shown(later)), "what is random replaces nothing"


def test_what_no_measurement_says_is_left_out():
    first, second = rows(RANDOM)
    bare = [replace(second, agreement=agreement, sqnr=None) for agreement in (None, 0.5)]
    card = model_card(replace(MANIFEST, measurements=(first, *bare)))
    said = [line for line in card.splitlines() if line.startswith("- measured")]
    assert said == ["- measured: int8 for cpu: agreement 0.500, on 64 random samples"]


def test_what_does_not_apply_is_left_out():
    card = model_card(replace(MANIFEST, steps=(), metrics={}, model=replace(MANIFEST.model, cut="")))
    assert "compressed" not in card
    assert "cut after" not in card
    assert "accuracy" not in card


def test_tables_of_numbers_are_left_out():
    assert "confusion" not in model_card(MANIFEST)


@pytest.mark.parametrize("license", ["Apache-2.0", "CC-BY-4.0", "GPL-3.0-only WITH Classpath-exception-2.0", "other"])
def test_the_front_matter_is_yaml_for_every_licence(license):
    assert front_matter(model_card(replace(MANIFEST, license=license)))["license"] == license.lower()


# What YAML takes for something else unless it is quoted: a comment, a list, a number, a date, false, null, an end.
TRAPS = (
    "mit # mine", "[mit", "other: mine", "1.0", "2024-01-01", "no", "null", "~", "- mit", "'mit", '"mit', "", " mit ",
    "mit\n---\npipeline_tag: other", "a\tb", "&a", "*a", "!a", "|", "%", "`", "é", "\u2028", "a\u202eb",
)  # fmt: skip


@pytest.mark.parametrize("text", TRAPS)
def test_what_yaml_would_take_for_something_else_is_quoted(text):
    model = replace(MANIFEST.model, backbone=f"hf://{text}@{'a' * 40}")
    card = model_card(replace(MANIFEST, license=text, model=model))
    front = front_matter(card)
    assert (front["license"], front["base_model"]) == (text.lower(), text)
    assert front["pipeline_tag"] == "image-classification"
    assert card.count("\n# flowers\n") == 1
    assert escapes.shown(card) == card


@given(st.text(st.characters(codec="utf8")))
def test_any_license_is_read_as_it_is(text):
    """Characters that YAML does not know are written by their number."""
    assert front_matter(model_card(replace(MANIFEST, license=text)))["license"] == text.lower()


@pytest.mark.parametrize("license", ["Apache-2.0", "MIT", "CC-BY-4.0", "other", "unknown", "BSD-3-Clause"])
@pytest.mark.parametrize("backbone", ["tinynet", "hf://org/My.model-1@" + "a" * 40])
def test_the_front_matter_of_usual_models_has_no_quotes(license, backbone):
    origin = "base_model: org/My.model-1\n" if backbone.startswith("hf://") else ""
    card = model_card(replace(MANIFEST, license=license, model=replace(MANIFEST.model, backbone=backbone)))
    assert card.startswith(
        f"---\nlicense: {license.lower()}\nlibrary_name: pocketzoo\npipeline_tag: image-classification\n{origin}---\n\n"
    )


MARKUP = (
    "<script>alert(1)</script>", "a <!-- b", "[a](https://b)", "![a](https://b)", "<https://b>", "a\n\n# b",
    "a\n---\nb", "a `b` c", "`", "``a`", "`a``", "*a* **b** _c_ __d__", "a_b_c", "~~a~~", "a | b", "&lt;b&gt;", "\\*a",
    "# a #", "- a", "+ a", "> a", "a\\", "=", "---", "a  b", "mobilenetv3_small_050.lamb_in1k", "R&D", "a #b", "C#",
    "1. a", "23)",
)  # fmt: skip
ESCAPED = st.text(st.sampled_from(list("\\`*_[]()<>&;~|#-+=!.: \nab1")), min_size=1, max_size=12)


def shown(name: str, file: bool) -> list[tuple[str, str]]:
    """What a reader sees of a card that has the name everywhere: each piece of text, and what kind it is."""
    backbone = f"onnx:{name}" if file else name
    named = replace(
        MANIFEST, name=name, model=replace(MANIFEST.model, backbone=backbone, head=name, cut=name),
        metrics={name: 1, "other": name}, processor=describe_config(replace(MANIFEST.input, name=name)), pocketzoo=name,
        steps=(StepRecord(compressor=name, config={}, plan={}),),
    )  # fmt: skip
    card = model_card(named)
    body = card[REGEX_YAML_BLOCK.search(card).end() :]
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body)
    return [(piece.type, piece.content) for token in tokens for piece in token.children or [token]]


@pytest.mark.parametrize("file", [False, True], ids=["registered", "file"])
@pytest.mark.parametrize("name", MARKUP)
def test_a_name_is_shown_as_it_is(name, file):
    line = " ".join(name.split())
    assert shown(name, file) == [(kind, content.replace("QQ", line)) for kind, content in shown("QQ", file)]


@given(ESCAPED.filter(str.strip))
def test_any_name_is_shown_as_it_is(name):
    line = " ".join(name.split())
    assert shown(name, False) == [(kind, content.replace("QQ", line)) for kind, content in shown("QQ", False)]


EVIL = (
    "<script>alert(1)</script>", "[x](javascript:1)", "![x](http://evil/x.png)", "a\n---\nevil: 1\n---\n",
    "\n# title\n", "\x1b]0;x\x07", "safe\u202egpj", "`</code><b>`", "| a | b |", "&lt;b&gt;", "<!-- x",
    " ``` \n<img src=x>",
)  # fmt: skip


def texts_of(value, path=()):
    """The way to each text in plain data."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from texts_of(each, (*path, key))
    elif isinstance(value, list):
        for at, each in enumerate(value):
            yield from texts_of(each, (*path, at))
    elif isinstance(value, str):
        yield path


def replaced(value, path, text):
    if not path:
        return text
    if isinstance(value, dict):
        return {**value, path[0]: replaced(value[path[0]], path[1:], text)}
    return [replaced(each, path[1:], text) if at == path[0] else each for at, each in enumerate(value)]


NAMES = ("agent", "foreign", "regression")
FROZEN = [Path(__file__).parents[2] / "frozen" / "format2" / name / "bundle" / "pocketzoo.json" for name in NAMES]


@pytest.mark.parametrize("place", FROZEN, ids=lambda path: path.parents[1].name)
def test_no_text_of_a_manifest_is_markup_wherever_it_stands(place):
    said = {**json.loads(place.read_text("utf8")), "files": {}}
    tried = 0
    for path in texts_of(said):
        for text in EVIL:
            try:
                manifest = read_manifest(replaced(said, path, text))
            except (PocketzooError, ValueError):
                continue
            card = model_card(manifest)
            assert set(front_matter(card)) <= {"license", "library_name", "pipeline_tag", "base_model"}, (path, text)
            assert escapes.shown(card) == card, (path, text)
            tokens = MarkdownIt("commonmark", {"html": True}).parse(card[REGEX_YAML_BLOCK.search(card).end() :])
            kinds = {each.type for token in tokens for each in (token, *(token.children or ()))}
            assert not kinds & {"html_block", "html_inline", "link_open", "image", "hr"}, (path, text)
            assert sum(token.type == "heading_open" for token in tokens) == 1, (path, text)
            tried += 1
    assert tried > 100
