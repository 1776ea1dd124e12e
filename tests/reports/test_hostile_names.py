"""Whatever a manifest, a data set or a graph holds is text on a page: no element, attribute or entity of its own."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import reports_of_before
from scoring import task

from pocketzoo.measure.confusion_matrix import Answers
from pocketzoo.measure.measure_graphs import Latency, Measurement
from pocketzoo.measure.peak_memory import Memory
from pocketzoo.measure.profile import Left, Node, Profile
from pocketzoo.reports.bench_plot import save_plot
from pocketzoo.reports.confusion_section import answers_section
from pocketzoo.reports.html_page import page
from pocketzoo.reports.learning_rate_plot import draw_rates
from pocketzoo.reports.profile_page import save_page
from pocketzoo.reports.report import report
from pocketzoo.zoo.backends.timing import Interval
from pocketzoo.zoo.bundles.bundle import writing
from pocketzoo.zoo.bundles.manifest import Manifest, ModelRef
from pocketzoo.zoo.bundles.metric_value import MetricValue
from pocketzoo.zoo.bundles.step_record import StepRecord
from pocketzoo.zoo.catalog.compressor import LayerDecision
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.catalog.task import Estimate
from pocketzoo.zoo.data.processors.open_processor import describe_config

# Each ends whatever it stands in, if nobody escapes it; and one that is escaped already is text too.
NAMES = {
    "element": "a<script>b</script>c",
    "attribute": "a\" onx='1' ' onx=\"1\" b",
    "both": "'\"><x-evil onx=\"1\" onx='1'>",
    "end": "]]>--></style></title></svg></main></script><x-evil>",
    "entity": "a&lt;x-evil&gt;&amp;&#60;&quot;",
    "template": "{{ 7 * 7 }}{% raw %}{# #}",
}


class Page(HTMLParser):
    """What a browser takes for markup, and what for text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = set(), {}, []
        self.feed(path.read_text("utf8"))
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        for name, value in attributes:
            self.attributes.setdefault(name, []).append(value)

    def handle_data(self, data):
        self.text.append(data)


def check(path: Path, name: str, *, least: int) -> None:
    page = Page(path)
    assert not page.tags & {"script", "x-evil"}
    assert not [attribute for attribute in page.attributes if attribute.startswith("on")]
    assert sum(name in text for text in page.text) >= least, "it is there, as it is"


def measurement(name: str, **changes) -> Measurement:
    latency = Latency(p50=1.0, p90=1.1, p99=1.5, throughput=9.0, runs=4, clock="cpu",
                      faster=Interval(middle=2.0, low=1.9, high=2.1))  # fmt: skip
    facts = Measurement(
        bundle=name, target="", precision="float32", runtime=name, bytes=1000, parameters=100, macs=100, samples=100,
        accuracy=0.9, agreement=1.0, sqnr=None, outputs={name: 20.0, f"{name}2": 30.0},
        latency={"1": latency, f"8x{name}": latency}, memory=Memory(peak=70_000_000, imports=50_000_000),
    )  # fmt: skip
    return replace(facts, **changes)


@pytest.fixture(params=NAMES.values(), ids=list(NAMES))
def name(request):
    return request.param


def test_a_report(name, tmp_path):
    numbers = dict.fromkeys(("parameters", "nonzero", "bytes", "macs"), 7)
    layers = [{"layer": name, "op": name, "precision": name, **numbers},
              {"layer": f"{name}.0", "op": name, "precision": "int8", **numbers}]  # fmt: skip
    taken = {"bytes_before": 9, "bytes_after": 8, "latency_of": name, "outputs_db": {name: 3.0, f"{name}2": None}}
    no = {"kind": name, "why": name, "config": {name: 1, "text": name}, "report": taken, "target": name}
    decisions = (
        LayerDecision(layer=name, what=name, why=name),
        LayerDecision(layer=f"{name}2", what=name, precision=name),
    )
    rows = (measurement(name), measurement(name, target=name, precision=name), measurement(name, target="cpu"))
    facts = Manifest(
        name=name,
        model=ModelRef(backbone=name, head=name, outputs=2, cut=name, head_options={name: name}),
        processor=describe_config(InputSpec(name=name, shape=(name, 1, 8, 8), mean=(0.5,), std=(0.5,), resize=8)),
        labels=(name, f"{name}2"),
        license=name,
        created=name,
        pocketzoo=name,
        parameters=1,
        macs=1,
        provenance={
            name: [name, {name: name}, [name]],
            "training": {"loss": [2, 1], f"val_{name}": [0.5, 0.6], f"val_{name}2": [1, 2], "stopped": name},
        },
        steps=(
            StepRecord(compressor=name, config={name: name, "x": [name]}, plan={},
                       provider=name, decisions=decisions,
                       report=reports_of_before.report(**taken, rejected=[no], left_in_float={name: name})),
        ),
        rejected=(reports_of_before.rejection(**no),),
        metrics={name: name, f"{name}2": {name: 1}},
        measurements=rows,
        layers={"float": layers, "cpu": layers, name: layers},
    )  # fmt: skip
    with writing(tmp_path / "model") as draft:
        file = name.replace("/", "").replace(">", "")  # a name of a file
        draft.mark(f"model.{file}.engine", target=name, precision=name).write_bytes(b"engine")
        draft.manifest = facts
    check(report([tmp_path / "model"], tmp_path / "report.html"), name, least=50)


def test_answers(name, tmp_path):
    labels = (name, f"{name}2")
    of_classes, answer = task("text-classification", labels), {"top": [{"label": name, "probability": 0.5}]}
    found = Answers(
        data=name,
        task=name,
        samples=10,
        metric=MetricValue(name=name, value=0.5),
        results={name: Estimate(0.5, 0.4, 0.6)},
        labels=labels,
        confusion=np.array([[1, 2], [3, 4]]),
        wrong=5,
        drawn=(of_classes.draw(name, answer, 0), of_classes.draw(np.zeros((4, 4), np.uint8), answer, 1)),
    )
    (tmp_path / "page.html").write_text(page("report", name, answers_section(found, name, "answers")), "utf8")
    check(tmp_path / "page.html", name, least=14)


@pytest.mark.parametrize("suffix", ["svg", "html"])
def test_a_bench(name, suffix, tmp_path):
    rows = (measurement(name), measurement(name, target=name, precision=name), measurement(name, precision="int8"))
    check(save_plot(rows, tmp_path / f"bench.{suffix}"), name, least=3)


@pytest.mark.parametrize("suffix", ["svg", "html"])
def test_a_plot_of_learning_rates(name, suffix, tmp_path):
    rates, losses = [1e-3, 1e-2, 1e-1], [2.0, 1.0, 3.0]
    check(draw_rates(tmp_path / f"rates.{suffix}", rates, losses, losses, 1e-2, name), name, least=1)


@pytest.mark.parametrize("target", ["", "target"])
def test_a_profile(name, target, tmp_path):
    nodes = tuple(
        Node(name=name, op=name, layer=layer, kind=kind, ms=1.0, reads=reads)
        for layer, kind, reads in ((name, "float", ()), ("", "int8", (0,)), ("", "conversion", (1,)))
    )
    found = Profile(
        bundle=name, target=target and name, batch=1, length=None, threads=1, runs=3, ms=4.0, nodes=nodes,
        torch_ms=5.0, torch_layers={name: 2.0}, left_in_float=(Left(layer=name, why=name, ms=1.0),),
    )  # fmt: skip
    check(save_page(found, tmp_path / "profile.html"), name, least=8)
