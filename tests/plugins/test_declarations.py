"""One conformance suite over everything that is registered: each spec is frozen, complete and of the right type."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from importlib.metadata import entry_points

import pytest

from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.zoo.catalog.backend import BackendSpec
from pocketzoo.zoo.catalog.compressor import GraphCompressor, ModuleCompressor
from pocketzoo.zoo.catalog.kinds import KINDS
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.processor import ProcessorSpec
from pocketzoo.zoo.catalog.registry import Registry, default_registry
from pocketzoo.zoo.catalog.specs import (
    BackboneSpec,
    DatasetSpec,
    ExporterSpec,
    FeatureSpec,
    HeadSpec,
    HubFile,
    InputSpec,
    LoaderSpec,
    PackageFile,
    TargetSpec,
    Weights,
)
from pocketzoo.zoo.catalog.task import DecoderSpec, TaskSpec

TYPES = {
    "backbone": BackboneSpec,
    "head": HeadSpec,
    "compressor": (ModuleCompressor, GraphCompressor),
    "exporter": ExporterSpec,
    "target": TargetSpec,
    "backend": BackendSpec,
    "task": TaskSpec,
    "decoder": DecoderSpec,
    "processor": ProcessorSpec,
    "dataset": DatasetSpec,
    "loader": LoaderSpec,
}
FREE_HEADS = ("embedding", "language-model", "linear", "mlp", "multi-label", "pooled-classifier", "q-values",
              "regression", "token-classifier")  # fmt: skip
# Third-party plugins that are installed go through the same suite.
REGISTRY = default_registry()
ENTRIES = [entry for kind in KINDS for entry in REGISTRY.entries(kind).values()]


def of(kind: str):
    entries = [entry for entry in ENTRIES if entry.kind == kind]
    return pytest.mark.parametrize("spec", [e.spec for e in entries], ids=[e.name for e in entries])


each = pytest.mark.parametrize("entry", ENTRIES, ids=[f"{e.kind} {e.name}" for e in ENTRIES])


def test_pocketzoo_ships_these():
    shipped = Registry(create_manager(points=[]))
    elsewhere = ("task", "decoder", "processor")  # tests/zoo/tasks and tests/zoo/data say which
    assert {kind: list(shipped.entries(kind)) for kind in KINDS if kind not in elsewhere} == {
        "backbone": ["mlp", "tinynet"],
        "head": sorted([*FREE_HEADS, "tinynet-fashion-mnist"]),
        "compressor": ["distill", "int8", "low-rank", "prune"],
        "exporter": ["onnx", "triton", "trtexec"],
        "target": [
            "cpu", "cuda", "jetson-orin", "jetson-thor", "openvino", "tensorrt", "tensorrt-10", "tensorrt-11",
            "tensorrt-rtx",
        ],
        "backend": ["onnxruntime", "tensorrt", "tensorrt-rtx", "torch"],
        "dataset": ["digits", "fashion-mnist"],
        "loader": ["timm", "transformers"],
    }  # fmt: skip


def test_every_installed_plugin_works():
    broken = {p.name: p.reason for p in REGISTRY.plugins() if p.reason}
    assert not broken
    assert {p.name for p in entry_points(group="pocketzoo")} <= {p.name for p in REGISTRY.plugins()}


@each
def test_a_spec_has_the_type_of_its_kind(entry):
    assert isinstance(entry.spec, TYPES[entry.kind])


@each
def test_a_name_can_be_typed_and_found(entry):
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*", entry.name)
    assert entry.name == entry.spec.name
    assert REGISTRY.get(entry.kind, entry.name) is entry.spec


@each
def test_a_summary_is_one_short_line(entry):
    summary = entry.spec.summary
    assert 10 <= len(summary) <= 110
    assert summary == summary.strip()
    assert "\n" not in summary
    assert not summary.endswith(".")


@each
def test_a_spec_is_frozen(entry):
    for f in dataclasses.fields(entry.spec):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(entry.spec, f.name, getattr(entry.spec, f.name))


@each
def test_a_spec_is_declared_equal_each_time_it_is_asked_for(entry):
    hook = next(
        h
        for h in getattr(REGISTRY.manager.hooks.hook, f"pocketzoo_{entry.kind}s").get_hookimpls()
        if h.plugin_name == entry.plugin
    )
    (again,) = [s for s in hook.function() if s.name == entry.name]
    facts = [
        {f.name: getattr(s, f.name) for f in dataclasses.fields(s) if not callable(getattr(s, f.name))}
        for s in (entry.spec, again)
    ]
    assert facts[0] == facts[1]


@pytest.mark.parametrize(
    "spec",
    [e.spec for e in ENTRIES if e.kind in ("backbone", "dataset")],
    ids=[e.name for e in ENTRIES if e.kind in ("backbone", "dataset")],
)
def test_a_licence_is_an_spdx_name(spec):
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", spec.license)


def check_weights(weights: Weights) -> None:
    assert re.fullmatch("[0-9a-f]{64}", weights.file.sha256), "every byte is pinned"
    if isinstance(weights.file, HubFile):
        assert re.fullmatch("[0-9a-f]{40}", weights.file.revision), "a commit, no branch"
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", weights.file.repo_id)
        assert weights.file.filename
        name = weights.file.filename
    else:
        assert isinstance(weights.file, PackageFile)
        name = weights.file.path
        assert not name.startswith("/")
        assert ".." not in name.split("/")
    assert name.endswith(".safetensors") or weights.read is not None, "no pickles"


def check_features(features: FeatureSpec) -> None:
    assert features.kind in ("map", "vector", "sequence")
    assert len(features.shape) == {"map": 4, "vector": 2, "sequence": 3}[features.kind]
    assert isinstance(features.shape[0], str), "the batch axis is free"
    assert features.channels > 0
    assert all(isinstance(d, str) or d > 0 for d in features.shape)


@of("backbone")
def test_an_input_is_complete(spec):
    given = spec.input
    assert isinstance(given.shape[0], str), "the batch axis is free"
    channels, height, width = given.size
    assert min(channels, height, width) > 0
    assert len(given.mean) == len(given.std) == channels
    assert all(math.isfinite(m) for m in given.mean)
    assert all(s > 0 for s in given.std)
    assert given.resize >= min(height, width), "the center is cut out of what was resized"
    assert given.value_range[0] < given.value_range[1]
    assert (given.layout, given.dtype) == ("NCHW", "float32")
    assert from_plain(InputSpec, json.loads(json.dumps(to_plain(given)))) == given


@of("backbone")
def test_a_backbone_names_where_it_is_from(spec):
    assert spec.source.startswith("https://")
    check_features(spec.features)
    for cut in spec.cuts:
        check_features(cut.features)
    assert len({cut.layer for cut in spec.cuts}) == len(spec.cuts)
    if spec.weights is not None:
        check_weights(spec.weights)
        assert spec.training, "how it was pretrained is recorded"


@of("backbone")
def test_a_backbone_builds_what_it_declares(spec):
    import torch

    module = spec.build().eval()
    x = torch.zeros(2, *spec.input.size)
    with torch.no_grad():
        given = module(x)
    assert tuple(given.shape[1:]) == tuple(int(d) for d in spec.features.shape[1:])
    assert given.shape[0] == 2
    assert {name for name, _ in module.named_modules()} >= {cut.layer for cut in spec.cuts}


@of("backbone")
def test_a_backbone_with_a_pretrained_head_fits_it(spec):
    if not spec.head:
        assert not [e for e in ENTRIES if e.kind == "head" and e.spec.backbone == spec.name]
        return
    head = REGISTRY.get("head", spec.head)
    assert head.backbone == spec.name
    assert head.weights is not None
    assert head.labels is not None
    assert spec.features.kind in head.takes


@of("head")
def test_a_head_is_complete(spec):
    from torch.nn import functional

    assert spec.takes
    assert set(spec.takes) <= {"map", "vector", "sequence"}
    former = [entry.spec for entry in REGISTRY.find(kind="task") if spec.returns in entry.spec.former]
    tasks = [entry.spec for entry in REGISTRY.find(spec.task, kind="task")] if spec.task else former
    assert tasks
    assert all(task.name in REGISTRY.get("decoder", spec.decoder or task.decoder).tasks for task in tasks)
    assert callable(getattr(functional, spec.loss, None)) or not spec.loss
    if spec.options is not None:
        assert spec.options.__dataclass_params__.frozen
        assert from_plain(spec.options, json.loads(json.dumps(to_plain(spec.options())))) == spec.options()
    if spec.weights is not None:
        check_weights(spec.weights)
        assert REGISTRY.get("backbone", spec.backbone).head == spec.name
    else:
        assert (spec.backbone, spec.labels) == ("", None)


@of("head")
def test_labels_are_unique(spec):
    labels = spec.labels() if spec.labels is not None else ("yes", "no")
    assert isinstance(labels, tuple)
    assert all(isinstance(name, str) and name.strip() == name and name for name in labels)
    assert len(set(labels)) == len(labels) >= 2


@pytest.mark.parametrize("outputs", [2, 7])
@pytest.mark.parametrize(
    ("name", "kind"), [(e.name, kind) for e in ENTRIES if e.kind == "head" for kind in e.spec.takes]
)
def test_a_head_builds_for_all_it_takes(name, kind, outputs):
    import torch

    spec = REGISTRY.get("head", name)
    shape = {"map": ("batch", 12, 5, 6), "vector": ("batch", 12), "sequence": ("batch", 9, 12)}[kind]
    module = spec.build(FeatureSpec(kind, shape), outputs).eval()
    wanted = (3, 9, outputs) if spec.task in ("token-classification", "text-generation") else (3, outputs)
    assert module(torch.rand(3, *shape[1:])).shape == wanted


@of("exporter")
def test_an_exporter_is_complete(spec):
    assert re.fullmatch(r"\.[a-z]+", spec.suffix)
    assert REGISTRY.get("target", spec.default_target)
    assert callable(spec.export)


@of("target")
def test_a_target_is_complete(spec):
    assert spec.int8.activations in ("uint8", "int8")
    assert spec.channel_multiple >= 1
    assert spec.opset >= 13, "per-channel quantization came with opset 13"
    if spec.int8.symmetric:
        assert spec.int8.activations == "int8", "zero is in the middle of int8 only"
    plain = dataclasses.replace(spec, facts=None)
    assert from_plain(TargetSpec, json.loads(json.dumps(to_plain(plain)))) == plain
    if spec.facts is not None:
        owner = REGISTRY.get("backend", spec.backend)
        assert from_plain(owner.facts, json.loads(json.dumps(to_plain(spec.facts)))) == spec.facts


@of("dataset")
def test_a_data_set_is_complete(spec):
    assert callable(spec.load)


@of("compressor")
def test_a_compressor_is_complete(spec):
    assert spec.form in ("module", "graph")
    assert isinstance(spec, ModuleCompressor if spec.form == "module" else GraphCompressor)
    assert callable(spec.plan)
    assert callable(spec.apply)
    for kind in (spec.config, spec.plan_type):
        assert dataclasses.is_dataclass(kind)
        assert kind.__dataclass_params__.frozen
    empty = spec.plan_type()
    assert spec.read_plan(json.loads(json.dumps(to_plain(empty)))) == empty


@of("compressor")
def test_every_field_of_a_config_is_explained(spec):
    import inspect

    source = inspect.getsource(spec.config)
    for f in dataclasses.fields(spec.config):
        assert f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        (line,) = re.findall(rf"^    {f.name}: .*$", source, re.MULTILINE)
        assert "#" in line or "Literal" in line, f"{f.name} has no comment"
