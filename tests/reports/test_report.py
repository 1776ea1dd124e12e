"""The page against the manifests it was drawn from: every number, every name, and a real browser."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import reports_of_before
from onnx import TensorProto, helper, numpy_helper

from pocketzoo.core.errors import BundleError, DataError, ExportError
from pocketzoo.core.typed import to_plain
from pocketzoo.reports.measured import layer_costs as report_layers
from pocketzoo.reports.report import report
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle, updating, writing
from pocketzoo.zoo.bundles.manifest import Manifest, ModelRef
from pocketzoo.zoo.bundles.step_record import StepRecord
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.processors.open_processor import describe_config
from pocketzoo.zoo.graphs.cost import layer_costs

HOSTILE = "<script>alert('x')</script>\"&<b"


def row(bundle: str, target: str = "", **changed: Any) -> dict[str, Any]:
    """A measurement as a manifest holds it."""
    latency = changed.pop("latency", {"1": {"p50": 0.8, "p99": 0.9}, "32": {"p50": 20.0, "p99": 21.0}})
    facts = {
        "bundle": bundle,
        "target": target,
        "precision": "int8" if target else "float32",
        "runtime": "onnxruntime",
        "bytes": 1_500_000,
        "parameters": 360_000,
        "macs": 37_000_000,
        "samples": 400,
        "accuracy": 0.975,
        "agreement": 1.0,
        "sqnr": None,
        "latency": latency,
        "threads": 1,
    }
    return {**facts, **changed}


def fast(p50: float) -> dict[str, dict[str, float]]:
    return {"1": {"p50": p50, "p99": p50 * 1.1}, "32": {"p50": p50 * 25, "p99": p50 * 26}}


RUN = (
    row("fitted"),
    row("small", bytes=750_000, accuracy=0.9725, agreement=0.98, sqnr=21.5, latency=fast(0.5)),
    row("small", "cpu", bytes=250_000, accuracy=0.97, agreement=0.9775, sqnr=17.25, latency=fast(0.32)),
)


def graph(path: Path, widths: tuple[int, ...]) -> None:
    """A float graph of Gemms: "dense0", "dense1", ..."""
    nodes, weights, last = [], [], "image"
    for i, (inner, outer) in enumerate(pairwise(widths)):
        weight, bias = np.ones((outer, inner), np.float32), np.ones(outer, np.float32)
        weights += [
            numpy_helper.from_array(weight, f"dense{i}.weight"),
            numpy_helper.from_array(bias, f"dense{i}.bias"),
        ]
        nodes.append(helper.make_node("Gemm", [last, weights[-2].name, weights[-1].name], [f"y{i}"], transB=1))
        last = f"y{i}"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name, width in (("image", widths[0]), (last, widths[-1]))
    ]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)), path)


def bundle(folder: Path, name: str, rows: tuple[dict[str, Any], ...] = (), **changed: Any) -> Path:
    """A bundle with one small graph and the measurements ``rows``."""
    facts = Manifest(
        name=name,
        model=ModelRef(backbone="tinynet", head="linear", outputs=10),
        processor=describe_config(InputSpec(shape=("batch", 1, 28, 28), mean=(0.286,), std=(0.353,), resize=28)),
        labels=("zero", HOSTILE),
        license="MIT",
        parameters=360_000,
        macs=37_000_000,
        provenance={
            "source": "https://example.org/paper",
            "training": {"rate": 0.003, "val": [0.5 + i / 40 for i in range(20)]},
        },
        metrics={"test_accuracy": 0.975},
    )
    with writing(folder) as draft:
        graph(draft.mark("model.onnx", precision="float32"), (8, 6, 3))
        (draft.mark("model.int8.x.engine", target="x", precision="int8")).write_bytes(b"engine")
        draft.manifest = replace(facts, **changed)
    place = folder / "pocketzoo.json"  # as it is read: of any version
    place.write_text(json.dumps({**json.loads(place.read_text("utf8")), "measurements": rows}), "utf8")
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """A fitted bundle without layers of its own, and a compressed one with everything."""
    costs = [
        {
            "layer": "dense0.0",
            "op": "Gemm",
            "precision": "int8",
            "parameters": 20,
            "nonzero": 19,
            "bytes": 24,
            "macs": 16,
        },
        {
            "layer": "dense0.1",
            "op": "Gemm",
            "precision": "int8",
            "parameters": 18,
            "nonzero": 18,
            "bytes": 30,
            "macs": 12,
        },
        {
            "layer": "dense1",
            "op": "Gemm",
            "precision": "float32",
            "parameters": 21,
            "nonzero": 21,
            "bytes": 84,
            "macs": 18,
        },
    ]
    steps = (
        StepRecord(
            compressor="prune",
            config={"ratio": 0.3, "skip": []},
            plan={},
            report=reports_of_before.report(parameters_before=75, parameters_after=59),
        ),
        StepRecord(compressor="int8", config={"percentile": 99.99, "ranges": "mse", "skip": ["a", "b"]}, plan={}),
    )
    layers = {
        "float": [{**cost, "precision": "float32", "bytes": 4 * cost["parameters"]} for cost in costs],
        "cpu": costs,
    }
    return [
        bundle(tmp_path / "fitted", "fitted", RUN),
        bundle(tmp_path / "small", "small", RUN, steps=steps, layers=layers),
    ]


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: str = ""
    inside: list[str] = field(default_factory=list)  # the tags around it


class Page(HTMLParser):
    """The elements of a page in order; fails on a tag that is closed out of turn."""

    VOID = ("meta", "link", "br", "img", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.elements, self._open = html, [], []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append(Element(tag, dict(attrs), inside=[e.tag for e in self._open]))
        if tag not in self.VOID:
            self._open.append(self.elements[-1])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, *tags: str) -> list[Element]:
        return [e for e in self.elements if e.tag in tags]

    def numbers(self) -> list[Element]:
        return [e for e in self.elements if "data-value" in e.attributes]

    def text(self, tag: str) -> str:
        return self.all(tag)[0].text


def draw(models: list[Path], **options: Any) -> Page:
    out = report(models, models[0].parent / "out" / "report.html", **options)
    return Page(out.read_text("utf8"))


def at(data: Any, path: str) -> Any:
    """The value at a dotted path; a key may have dots in it, as file names have."""
    if not path:
        return data
    if isinstance(data, list):
        first, _, rest = path.partition(".")
        return at(data[int(first)], rest)
    key = next(k for k in data if path == k or path.startswith(f"{k}."))
    return at(data[key], path[len(key) + 1 :])


def sources(bundles: list[Bundle]) -> list[dict[str, Any]]:
    """Manifests as plain data, with the float graph counted anew as "graph"."""
    return [{**to_plain(b.manifest), "graph": to_plain(layer_costs(b.graph("")))} for b in bundles]


def test_every_number_on_the_page_is_the_manifests(pair: list[Path]) -> None:
    known = sources([read_bundle(path) for path in pair])
    numbers = draw(pair).numbers()
    keys = {e.attributes["data-key"] for e in numbers}
    for e in numbers:
        value = ast.literal_eval(str(e.attributes["data-value"]))
        expected = at(known[int(str(e.attributes["data-bundle"]))], str(e.attributes["data-key"]))
        assert (value, type(value)) == (expected, type(expected)), e
    for i, facts in enumerate(RUN):
        for name in ("bytes", "parameters", "macs", "accuracy", "agreement", "sqnr"):
            assert (f"measurements.{i}.{name}" in keys) == (facts[name] is not None)
        assert {f"measurements.{i}.latency.{size}.{p}" for size in ("1", "32") for p in ("p50", "p99")} <= keys
    assert {"files.model.int8.x.engine.size", "steps.0.report.parameters.after", "steps.1.config.percentile"} <= keys
    assert {
        "metrics.test_accuracy",
        "provenance.training.rate",
        "provenance.training.val.19",
        "processor.config.mean.0",
    } <= keys
    assert {"layers.cpu.1.bytes", "layers.float.2.macs", "graph.1.macs"} <= keys


def test_the_table_shows_numbers_and_ratios_to_the_reference(pair: list[Path]) -> None:
    def words(e: Element) -> str:
        return e.text.replace("\u00d7", "x").replace("\u2212", "-")

    rows = [words(e) for e in draw(pair).all("th", "td") if "figure" in e.inside and "tbody" in e.inside]
    assert rows[:11] == [
        "fitted referencefloat32",
        "97.5",
        "100.0",
        "\u2013",
        "1,500",
        "360",
        "37.0",
        "0.80",
        "0.90",
        "20.00",
        "21.00",
    ]
    assert rows[22:] == [
        "smallint8 for cpu", "97.0-0.5", "97.8", "17.2", "2506.0x", "3601.0x", "37.01.0x",
        "0.322.5x", "0.352.6x", "8.002.5x", "8.322.5x",
    ]  # fmt: skip


def test_the_headline_says_what_was_won_and_what_it_cost(pair: list[Path]) -> None:
    page = draw(pair)
    assert page.text("h1") == page.text("title") == "6.0\u00d7 smaller and 2.5\u00d7 faster, for 0.5 points of accuracy"
    tiles = [e.text for e in page.all("div") if e.attributes.get("class") == "tile"]
    assert tiles == [
        "file size6.0\u00d7 smaller1,500\u00a0KB \u2192 250\u00a0KB",
        "latency, batch 12.5\u00d7 faster0.80\u00a0ms \u2192 0.32\u00a0ms",
        "accuracy\u22120.5 points97.5% \u2192 97.0%",
        "multiply-accumulatesthe same37.0\u00a0M \u2192 37.0\u00a0M",
    ]


HEADLINES = [
    ((row("a"), row("b", "cpu", bytes=500_000, latency=fast(1.6), accuracy=0.985)),
     "3.0\u00d7 smaller but 2.0\u00d7 slower, with 1.0 points of accuracy gained"),
    ((row("a"), row("b", bytes=3_000_000, latency=fast(1.6))),
     "2.0\u00d7 larger and 2.0\u00d7 slower, with no accuracy lost"),
    ((row("a", accuracy=None), row("b", "x", accuracy=None, agreement=0.9, bytes=150_000, latency={})),
     "10\u00d7 smaller, with equal predictions for 90.0% of the samples"),
    # No int8 for the CPU: the smallest row, be it encoded for another target.
    ((row("a"), row("b", bytes=700_000), row("c", "x", bytes=600_000)),
     "2.5\u00d7 smaller and as fast, with no accuracy lost"),
    # The fastest may cost more than it is worth: of those within a point the fastest, else the one that loses least.
    ((row("a"), *(row("b", "cpu", bytes=size, accuracy=a, latency=fast(size / 1e6))
                  for size, a in ((300_000, 0.9), (500_000, 0.965), (750_000, 0.974)))),
     "3.0\u00d7 smaller and 1.6\u00d7 faster, for 1.0 points of accuracy"),
    ((row("a"), *(row("b", "cpu", bytes=size, accuracy=a) for size, a in ((300_000, 0.9), (750_000, 0.95)))),
     "2.0\u00d7 smaller and as fast, for 2.5 points of accuracy"),
    ((row("a"),), "a: 97.5% accuracy, 0.80\u00a0ms, 1,500\u00a0KB"),
    ((row("a", accuracy=None, latency={}),), "a: 1,500\u00a0KB"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "sentence"), HEADLINES)
def test_the_headline_of_other_runs(tmp_path: Path, rows: tuple[dict[str, Any], ...], sentence: str) -> None:
    assert draw([bundle(tmp_path / "a", "a", rows)]).text("h1") == sentence[0].upper() + sentence[1:]


def test_without_classes_agreement_takes_the_place_of_accuracy(tmp_path: Path) -> None:
    page = draw([bundle(tmp_path / "a", "a", (row("a", accuracy=None), row("b", "cpu", accuracy=None, agreement=0.5)))])
    assert "Agreement against latency" in [e.text for e in page.all("h2")]
    assert "accuracy" not in [e.attributes["data-key"].split(".")[-1] for e in page.numbers() if "measure" in str(e)]


def test_names_are_text_whatever_they_hold(tmp_path: Path) -> None:
    rows = (row(HOSTILE), row(HOSTILE, "cpu", runtime=HOSTILE, latency=fast(0.1)))
    layer = {
        "layer": HOSTILE,
        "op": HOSTILE,
        "precision": HOSTILE,
        "parameters": 1,
        "nonzero": 1,
        "bytes": 1,
        "macs": 1,
    }
    path = bundle(
        tmp_path / "a", HOSTILE, rows,
        steps=(StepRecord(compressor=HOSTILE, config={HOSTILE: HOSTILE}, plan={}),),
        provenance={HOSTILE: [HOSTILE, {HOSTILE: 1}]},
        layers={"float": [layer], "cpu": [layer], HOSTILE: [layer]},
    )  # fmt: skip
    page = draw([path])
    assert not page.all("script", "b")
    assert "<script" not in page.html
    assert {e.text for e in page.all("summary") if HOSTILE in e.text}
    allowed = (
        "html head body meta title link style header main footer section details summary figure figcaption div span"
    )
    allowed += " p h1 h2 h3 h4 i br strong code dl dt dd ol li table caption thead tbody tr th td"
    allowed += " svg desc g line text tspan circle rect"
    assert {e.tag for e in page.elements} <= set(allowed.split())


def test_a_run_that_several_bundles_carry_is_shown_once(pair: list[Path]) -> None:
    page = draw(pair)
    assert sum("measured" in str(e.attributes.get("class")) for e in page.all("table")) == 1


def test_each_run_has_its_own_section_and_its_own_reference(tmp_path: Path) -> None:
    runs = (row("a"), row("b", "cpu", bytes=750_000)), (row("b", bytes=9_000_000), row("c", "cpu", bytes=3_000_000))
    page = draw([bundle(tmp_path / f"{i}", name, rows) for i, (name, rows) in enumerate(zip("bc", runs, strict=True))])
    sections = [e for e in page.all("section") if e.attributes.get("class") == "run"]
    assert page.text("h1") == "2 runs, measured separately"
    assert len(sections) == 2
    assert "Run 1: 2.0\u00d7 smaller" in sections[0].text
    assert "Run 2: 3.0\u00d7 smaller" in sections[1].text
    keys = {(e.attributes["data-bundle"], e.attributes["data-key"]) for e in page.numbers()}
    assert {("0", "measurements.1.bytes"), ("1", "measurements.1.bytes")} <= keys


def test_two_bundles_of_one_name_are_told_apart_by_their_path(tmp_path: Path) -> None:
    rows = (row("a"), row("a", "cpu"))
    page = draw([bundle(tmp_path / "x", "a", rows), bundle(tmp_path / "y", "a", rows)])
    titles = [e.text for e in page.all("span") if e.attributes.get("class") == "model" and "summary" in e.inside]
    assert titles == [f"a ({tmp_path / 'x'})", f"a ({tmp_path / 'y'})"]


def test_a_bundle_that_was_not_measured_says_how_to(tmp_path: Path, refused: Any) -> None:
    paths = [bundle(tmp_path / "my model", "fitted"), bundle(tmp_path / "other", "other", RUN[1:])]
    command = f"pocketzoo bench '{tmp_path}/my model' {tmp_path}/other --data DATA --save"
    with refused(DataError, "fitted has no measurements", hint=f"measure them first: {command}"):
        report(paths, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_model_that_others_were_measured_with_needs_no_rows_of_its_own(tmp_path: Path) -> None:
    paths = [bundle(tmp_path / "a", "fitted"), bundle(tmp_path / "b", "small", RUN)]
    assert {e.attributes["data-bundle"] for e in draw(paths).numbers() if "measure" in str(e)} == {"1"}


def test_measurements_and_layers_of_another_version_are_named(tmp_path: Path, refused: Any) -> None:
    path = bundle(tmp_path / "a", "a", ({**row("a"), "watts": 3},))
    with refused(BundleError, "no field of Measurement is called 'watts'", "measurements[0]"):
        report([path], tmp_path / "r.html")
    path = bundle(tmp_path / "b", "b", RUN, layers={"float": [{"layer": "x"}]})
    with refused(BundleError, "LayerCost needs a field 'op'", "layers['float'][0]"):
        report([path], tmp_path / "r.html")


def test_the_runs_of_one_bundle_are_shown_apart_the_last_first(tmp_path: Path) -> None:
    """A bench that measures other things than ``compress`` did is added, and compared with its own reference."""

    def measured(day: int) -> dict[str, Any]:
        return {"machine": {"cpu": "x", "cores": day}, "date": f"2026-11-{day}T00:00:00.000Z"}

    rows = [row("a", measured=measured(10)), row("a", "cpu", bytes=750_000, measured=measured(10))]
    rows += [row("b", bytes=9_000_000, measured=measured(11)), row("a", "cpu", bytes=3_000_000, measured=measured(11))]
    page = draw([bundle(tmp_path / "a", "a", tuple(rows))])
    sections = [e for e in page.all("section") if e.attributes.get("class") == "run"]
    assert ["Run 1: 3.0\u00d7 smaller" in sections[0].text, "Run 2: 2.0\u00d7 smaller" in sections[1].text] == [
        True
    ] * 2
    values = {e.attributes["data-key"]: e.attributes["data-value"] for e in page.numbers()}
    assert [values[f"measurements.{i}.bytes"] for i in range(4)] == [str(each["bytes"]) for each in rows]


def test_places_that_are_no_file_are_refused(pair: list[Path], refused: Any) -> None:
    with refused(ExportError, f"{pair[0].parent} is a folder", hint="-o"):
        report(pair, pair[0].parent)
    with refused(ExportError, "report.html is inside a bundle", hint="-o"):
        report(pair, pair[0] / "report.html")
    with refused(DataError, "no bundles are given", hint="name one or more bundles"):
        report([], pair[0].parent / "r.html")


def test_nothing_is_fetched_or_run(pair: list[Path]) -> None:
    page = draw(pair)
    for e in page.elements:
        assert not [name for name in e.attributes if name.startswith("on") or name in ("src", "srcset", "xlink:href")]
        assert str(e.attributes.get("href", "data:,")) == "data:,"
    assert not re.search(r"url\(|@import|https?:", page.text("style"))
    outside = [line for line in page.html.split("<") if "://" in line]
    assert outside == ["dd>https://example.org/paper"] * 2


def test_the_same_bundles_give_the_same_page(pair: list[Path]) -> None:
    assert draw(pair).html == draw(pair).html


def test_readers_who_do_not_see_it_have_names_for_everything(pair: list[Path]) -> None:
    page = draw(pair)
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for e in page.elements:
        for name in str(e.attributes.get("aria-labelledby", "")).split():
            assert name in ids
    assert len(page.all("svg")) == 4
    for drawing in page.all("svg"):
        assert drawing.attributes["role"] == "img"
    assert len(page.all("desc")) == 4
    assert len(page.all("caption")) == len(page.all("table"))
    assert all("scope" in e.attributes for e in page.all("th"))
    levels = [int(e.tag[1]) for e in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_bars_set_factors_beside_the_layer_they_were(pair: list[Path]) -> None:
    page = draw(pair)
    before = [e for e in page.all("rect") if e.attributes.get("class") == "before"]
    after = [e for e in page.all("rect") if e.attributes.get("class") == "after"]
    assert [e.attributes["data-key"] for e in before[:4]] == [
        f"graph.{i}.{f}" for i in (0, 1) for f in ("macs", "bytes")
    ]
    assert [e.attributes["data-key"] for e in after[:6]] == [
        "layers.cpu.0.macs", "layers.cpu.1.macs", "layers.cpu.0.bytes", "layers.cpu.1.bytes",
        "layers.cpu.2.macs", "layers.cpu.2.bytes",
    ]  # fmt: skip
    length = {str(e.attributes["data-key"]): float(str(e.attributes["width"])) for e in reversed(before + after)}
    assert length["layers.cpu.0.macs"] / length["graph.0.macs"] == pytest.approx(16 / 48, rel=0.01)
    sums = [e.text for e in page.all("text") if str(e.attributes.get("class")).startswith("value")]
    assert sums[:4] == ["48", "28", "0.2\u00a0KB", "0.1\u00a0KB"]


def test_of_many_layers_the_costliest_are_drawn_and_the_others_summed(tmp_path: Path) -> None:
    fields = ("parameters", "nonzero", "bytes", "macs")
    layers = [
        {"layer": f"l{i}", "op": "Conv", "precision": "float32", **dict.fromkeys(fields, 1000 * (i + 1))}
        for i in range(40)
    ]
    cpu = [{**layer, "precision": "int8"} for layer in layers]
    page = draw([bundle(tmp_path / "a", "a", (row("a"), row("a", "cpu")), layers={"float": layers, "cpu": cpu})])
    drawn = {e.attributes["data-key"] for e in page.all("rect") if e.attributes.get("class") == "after"}
    assert drawn == {f"layers.cpu.{i}.{field}" for i in range(8, 40) for field in ("macs", "bytes")}
    texts = [e.text for e in page.all("text")]
    assert texts.count("8 other layers8 other layers") == 2
    assert texts.count("36.0\u00a0k \u2192 36.0\u00a0k") == 2


def test_without_onnx_and_without_layers_the_rest_is_there(pair: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_layers, "find_spec", lambda name: None)
    with updating(read_bundle(pair[1])) as draft:
        draft.manifest = replace(read_bundle(pair[1]).manifest, layers={})
    page = draw(pair)
    assert "Layer by layer" not in page.html
    assert len(page.all("svg")) == 2


def contrast(a: str, b: str) -> float:
    """Of two colors "#rrggbb". Source: WCAG 2.2, relative luminance."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colors_differ_enough_to_be_read_in_light_and_dark_and_on_paper(pair: list[Path]) -> None:
    full = {"#fff": "#ffffff", "#000": "#000000", "#444": "#444444", "#ccc": "#cccccc", "#888": "#888888"}
    schemes = re.findall(r":root \{(.*?)\}", draw(pair).text("style"), re.DOTALL)
    assert len(schemes) == 3
    for scheme in schemes:
        colors = {name: full.get(value, value) for name, value in re.findall(r"--([\w-]+): (#\w+)", scheme)}
        for text in ("ink", "soft", "good", "bad"):
            assert min(contrast(colors[text], colors[paper]) for paper in ("page", "card", "tint")) >= 4.5
        assert contrast(colors["card"], colors["after"]) >= 4.5  # the word on a badge
        for shape in ("float", "after", "before-edge"):
            assert contrast(colors[shape], colors["card"]) >= 3


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")


def browse(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page in Chromium; what it would say on the console is on stderr as CONSOLE."""
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
    log = ["--enable-logging=stderr", "--v=0", f"--user-data-dir={profile}"]
    done = subprocess.run(
        [BROWSER, *quiet, *log, *options, page.as_uri()], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no chromium, chromium-browser or google-chrome on PATH")
def test_a_browser_draws_it_light_and_dark_without_a_complaint(pair: list[Path], tmp_path: Path) -> None:
    from PIL import Image

    page = report(pair, tmp_path / "report.html")
    shown = browse(page, tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" not in shown.stderr
    dom = shown.stdout
    assert (dom.count("<svg"), dom.count('<table class="measured">'), dom.count("<details")) == (4, 1, 2)
    broken = page.with_name("broken.html")
    broken.write_text(page.read_text("utf8").replace("<main>", "<main><script>1</script>"), "utf8")
    assert "CONSOLE" in browse(broken, tmp_path / "profile", "--dump-dom").stderr  # so it would be seen
    brightness = {}
    for scheme, number in (("dark", 0), ("light", 1)):  # blink's preferredColorScheme
        for width in (1280, 420):
            screenshot = tmp_path / f"{scheme}-{width}.png"
            size = [f"--window-size={width},2400", f"--blink-settings=preferredColorScheme={number}"]
            browse(page, tmp_path / "profile", f"--screenshot={screenshot}", *size)
            with Image.open(screenshot) as image:
                assert image.size == (width, 2400)
                pixels = np.asarray(image.convert("L"), dtype=float)
            brightness[scheme, width] = float(pixels.mean())
            assert pixels.std() > 10  # something is drawn
            assert pixels[:, -4:].std() < 1  # and nothing runs over the right edge
    assert min(brightness["light", w] for w in (1280, 420)) > 200
    assert max(brightness["dark", w] for w in (1280, 420)) < 60


def test_steps_are_shown_before_and_after_with_what_was_rejected_and_why(tmp_path: Path) -> None:
    def measured(**changes: Any) -> dict[str, Any]:
        facts = {"bytes": (1_500_000, 750_000), "latency_ms": (0.8, 0.5), "accuracy": (0.975, 0.97)}
        pairs = {f"{k}_{w}": v for k, both in facts.items() for w, v in zip(("before", "after"), both, strict=True)}
        return {**pairs, "seconds": 3.25, "sqnr_db": 21.5, "validation_samples": 400, **changes}

    why = "accuracy falls by 3.00 points, 0.50 are allowed so far"
    no = {"kind": "prune", "config": {"ratio": 0.6}, "why": why, "report": measured(accuracy_after=0.945)}
    steps = (
        StepRecord(
            compressor="prune",
            config={"ratio": 0.3},
            plan={},
            report=reports_of_before.report(**measured(rejected=[no])),
        ),
        StepRecord(
            compressor="int8",
            config={"skip": ["dense1"]},
            plan={"ranges": {}, "layers": []},
            report=reports_of_before.report(**measured(), left_in_float={"dense0": "+2.10 dB for +0.020 ms"}),
        ),
    )
    slower = reports_of_before.rejection(
        kind="low-rank",
        config={"energy": 0.9},
        why="slower: 0.500 -> 0.700 ms a sample",
        report=measured(latency_ms_after=0.7),
    )
    cost = {"op": "Gemm", "precision": "float32", "parameters": 54, "nonzero": 54, "bytes": 216, "macs": 48}
    layers = {"float": [{**cost, "layer": f"dense{i}"} for i in range(2)]}
    path = bundle(tmp_path / "a", "a", RUN, steps=steps, rejected=(slower,), layers=layers)
    page = draw([path])
    known = sources([read_bundle(path)])
    numbers = page.numbers()
    for e in numbers:
        value = ast.literal_eval(str(e.attributes["data-value"]))
        assert value == at(known[0], str(e.attributes["data-key"])), e
    keys = {e.attributes["data-key"] for e in numbers}
    assert {
        "steps.0.report.latency.after",
        "steps.0.report.rejected.0.report.metric.after",
        "steps.1.report.sqnr",
        "steps.1.report.seconds",
        "rejected.0.report.latency.after",
    } <= keys
    heads = [e.text for e in page.all("th") if e.attributes.get("scope") == "row" and "details" in e.inside]
    assert heads[:4] == [
        f"pruneratio 0.6rejected: {why}",
        "pruneratio 0.3",
        "int8",
        "low-rankenergy 0.9rejected: slower: 0.500 -> 0.700 ms a sample",
    ]
    whys = [e.text for e in page.all("td") if e.attributes.get("class") == "text why"]
    assert whys == ["in float: +2.10 dB for +0.020 ms", "int8: skipped by the recipe"]
