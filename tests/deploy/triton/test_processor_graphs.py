"""Every processor that can be written as a graph: what the graph makes equals what numpy makes, to 1e-5."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from told import Told

from pocketzoo.deploy.triton.model_repository import save_repository
from pocketzoo.zoo.catalog.export_request import ExportRequest
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec, MappingSpec, TableSpec
from pocketzoo.zoo.catalog.registry import default_registry
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.data.processors.open_processor import open_config

SPECS = {name: entry.spec for name, entry in default_registry().entries("processor").items()}


@st.composite
def tables(draw):
    """A config, and rows as a client sends them: with NaN where something stands for it."""
    width, missing = draw(st.integers(1, 6)), draw(st.booleans())
    numbers = st.floats(-1e4, 1e4, width=32)
    columns = st.lists(numbers, min_size=width, max_size=width).map(tuple)
    scales = st.lists(st.floats(0.015625, 1e4, width=32), min_size=width, max_size=width).map(tuple)
    mean, std = draw(columns), draw(scales)
    spec = TableSpec(
        width=width,
        mean=mean if draw(st.booleans()) or not missing else (),
        std=std if draw(st.booleans()) else (),
        missing=draw(columns) if missing else (),
        name=draw(st.sampled_from(["vector", "rows", "sub", "where", "mean"])),
    )
    cells = numbers | st.just(float("nan")) if missing else numbers
    rows = draw(st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=5))
    return spec, np.array(rows, np.float32)


@st.composite
def images(draw):
    """A config, and pixels; both rules of the filters, larger and smaller than what the model reads."""
    channels = draw(st.sampled_from([1, 3]))
    height = width = draw(st.integers(4, 20))
    spec = InputSpec(
        shape=("batch", channels, height, width),
        mean=draw(st.sampled_from([(0.5,), (0.0,), (0.3,)])) * channels,
        std=draw(st.sampled_from([(0.5,), (1.0,), (0.2,)])) * channels,
        resize=draw(st.integers(min(height, width), 24)),
        center=draw(st.sampled_from(("floor", "even"))),
        interpolation=draw(st.sampled_from(["bilinear", "bicubic"])),
        stretch=draw(st.booleans()),
    )
    # Squares: of others Pillow may resize columns first, and some pixels are off by one (test_model_repository.py).
    side = draw(st.integers(24, 40))
    pixels = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (2, side, side, channels), np.uint8)
    return spec, pixels


WAYS = {"table": tables(), "image": images()}


def test_each_processor_that_has_a_graph_is_held_here():
    assert {name for name, spec in SPECS.items() if spec.graph is not None} == set(WAYS)


@pytest.mark.parametrize("name", sorted(WAYS))
def test_the_graph_makes_what_numpy_makes(name, tmp_path_factory):
    path = tmp_path_factory.mktemp("graphs") / "graph.onnx"

    @settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
    @given(WAYS[name])
    def check(case):
        config, raw = case
        SPECS[name].graph(config, path)
        session = onnxruntime.InferenceSession(path)
        (source,), (out,) = session.get_inputs(), session.get_outputs()
        made = session.run(None, {source.name: raw})[0]
        processor = open_config(config)
        samples = [row[..., 0] if name == "image" and row.shape[-1] == 1 else row for row in raw]
        (tensor,) = processor.inputs
        wanted = processor(samples)[tensor.name]
        assert tensor.name in (out.name, source.name)
        assert np.abs(made - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())

    check()


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("text", TextSpec(vocabulary=9, pad=0, max_length=8)),
        ("arrays", ArraysSpec(inputs=(TensorSpec(name="x", shape=("n", 2)),))),
        ("mapping", MappingSpec(fields={"a": TableSpec(width=2)})),
        ("table", TableSpec(width=2)),
    ],
)
def test_one_without_says_so_by_its_name(name, config, tmp_path, compressed):
    """An ensemble would need it: the repository has none, and the client is told by the processor's name."""
    told = Told()
    graph = None if SPECS[name].graph is None else partial(SPECS[name].graph, config)
    request = ExportRequest(name="m", input=config, processor=name, modality=SPECS[name].modality, graph=graph)
    save_repository(
        compressed.graph(""), tmp_path / "r", default_registry().get("target", "cpu"), request, progress=told
    )
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["m"]
    (said,) = [each for each in told.said if "no ensemble" in each]
    assert f"the processor {name!r}" in said
