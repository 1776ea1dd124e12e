"""Repositories, Hubs and caches that mean harm: a canary never sings, and nothing is written outside the store.

Every case is a model that would work but for one thing. It is used as a user would use it, and must end in one typed
error that says what next; afterwards the store is clean.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from hubmodels import write_sentence_transformer
from huggingface_hub import close_session, hf_hub_download
from localhub import Fault, LocalHub, point_at

import pocketzoo
from pocketzoo.core.errors import (
    BundleError,
    HubIntegrityError,
    PocketzooError,
    StorageError,
    UnsafeFileError,
    UnsupportedModelError,
)
from pocketzoo.zoo.bundles.bundle import read_bundle, seal
from pocketzoo.zoo.bundles.manifest import MANIFEST, ModelRef
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.processors.text_encoder import TextEncoder
from pocketzoo.zoo.hub import http as hub_http
from pocketzoo.zoo.hub.store import Store
from pocketzoo.zoo.models.build import build, load_pretrained
from pocketzoo.zoo.models.pull import pull
from pocketzoo.zoo.models.resolver import Resolver

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
REF, REPO = "hf://acme/model", "acme/model"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
CANARY = "canary"
BOMB = gzip.compress(bytes(50_000_000), 1)
Harm = Callable[[Path], None]


class Sings:
    """Makes the canary where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def canary(folder: Path) -> Path:
    return folder.parent / CANARY


def pickled(name: str, protocol: int = 4) -> Harm:
    return lambda folder: put(folder, name, pickle.dumps(Sings(canary(folder)), protocol))


def holds(name: str, data: bytes) -> Harm:
    return lambda folder: put(folder, name, data)


def put(folder: Path, name: str, data: bytes) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(data)


def links(name: str, target: str) -> Harm:
    """As git keeps it: the link's own text is what the Hub serves."""

    def harm(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return harm


def configured(**fields: Any) -> Harm:
    def harm(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        put(folder, CONFIG, json.dumps({**config, **fields}).encode())
        sings = f"open({str(canary(folder))!r}, 'w')\nclass Model: pass\n"
        for name in ("evil.py", "modeling_bert.py", "configuration_bert.py", "__init__.py", "setup.py"):
            put(folder, name, sings.encode())

    return harm


def header(text: bytes, length: int | None = None, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: list[int], offsets: list[int]) -> bytes:
    return header(json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode(), data=bytes(8))


def zipped(size: int, names: tuple[str, ...] = ("data.pkl",)) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in names:
            archive.writestr(name, bytes(size))
    return out.getvalue()


def only_a_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    pickled("pytorch_model.bin")(folder)


# What is wrong with the repository -> the error, and a part of what it says.
REPOSITORIES: dict[str, tuple[Harm, type[PocketzooError], str]] = {
    "a pickle called model.safetensors": (pickled(WEIGHTS), UnsafeFileError, WEIGHTS),
    "an old pickle called model.safetensors": (pickled(WEIGHTS, 0), UnsafeFileError, WEIGHTS),
    "a pickle called config.json": (pickled(CONFIG), UnsafeFileError, "config.json of acme/model is not valid JSON"),
    "a pickle called tokenizer.json": (pickled("tokenizer.json"), UnsupportedModelError, "not valid JSON"),
    "a pickle called tokenizer_config.json": (
        pickled("tokenizer_config.json"),
        UnsupportedModelError,
        "not valid JSON",
    ),
    "a pickle called modules.json": (pickled("modules.json"), UnsupportedModelError, "modules.json"),
    "a pickle called 1_Pooling/config.json": (pickled("1_Pooling/config.json"), UnsupportedModelError, "1_Pooling"),
    "a pickle alone": (only_a_pickle, UnsupportedModelError, "can run code"),
    "auto_map": (configured(auto_map={"AutoModel": "evil.Model"}), UnsupportedModelError, "requires custom code"),
    "an empty auto_map": (configured(auto_map={}), UnsupportedModelError, "requires custom code"),
    "a model type of its own": (configured(model_type="evil"), UnsupportedModelError, "'evil'"),
    "a model type that is a path": (configured(model_type="../evil"), UnsupportedModelError, "'../evil'"),
    "a zip called model.safetensors": (holds(WEIGHTS, zipped(100)), UnsafeFileError, WEIGHTS),
    "a zip bomb called model.safetensors": (holds(WEIGHTS, zipped(100_000_000)), UnsafeFileError, WEIGHTS),
    "a zip whose names climb out": (holds(WEIGHTS, zipped(9, ("../canary", "/canary"))), UnsafeFileError, WEIGHTS),
    "a zip bomb called config.json": (holds(CONFIG, zipped(100_000_000)), UnsafeFileError, "not valid JSON"),
    "a gzip bomb called model.safetensors": (holds(WEIGHTS, BOMB), UnsafeFileError, ""),
    "a gzip bomb called config.json": (holds(CONFIG, BOMB), UnsafeFileError, "not valid JSON"),
    "a gzip called tokenizer.json": (
        holds("tokenizer.json", gzip.compress(b"{}")),
        UnsupportedModelError,
        "not valid JSON",
    ),
    "a header of 2^64 - 1 bytes": (holds(WEIGHTS, header(b"{}", 2**64 - 1)), UnsafeFileError, WEIGHTS),
    "a header of 2^63 bytes": (holds(WEIGHTS, header(b"{}", 2**63)), UnsafeFileError, WEIGHTS),
    "a header longer than the file": (holds(WEIGHTS, header(b"{}", 50_000_000)), UnsafeFileError, WEIGHTS),
    "a header of 20 MB": (holds(WEIGHTS, header(b"{" + b" " * 20_000_000)), UnsafeFileError, WEIGHTS),
    "a header too deep": (holds(WEIGHTS, header(b"[" * 200_000)), UnsafeFileError, WEIGHTS),
    "a tensor of 2^62 x 2^62": (holds(WEIGHTS, tensor([2**62, 2**62], [0, 8])), UnsafeFileError, WEIGHTS),
    "a tensor that ends outside": (holds(WEIGHTS, tensor([2**40], [0, 2**42])), UnsafeFileError, WEIGHTS),
    "a tensor that begins outside": (holds(WEIGHTS, tensor([2], [2**40, 2**40 + 8])), UnsafeFileError, WEIGHTS),
    "no bytes called model.safetensors": (holds(WEIGHTS, b""), UnsafeFileError, WEIGHTS),
    "model.safetensors is a link": (links(WEIGHTS, "../../../../../etc/passwd"), UnsafeFileError, WEIGHTS),
    "config.json is a link": (links(CONFIG, "/etc/passwd"), UnsafeFileError, "not valid JSON"),
    "tokenizer.json is a link": (links("tokenizer.json", "/etc/passwd"), UnsupportedModelError, "not valid JSON"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A small model of sentence-transformers that is as it should be."""
    folder = tmp_path_factory.mktemp("sound") / "repo"
    write_sentence_transformer(folder)
    return folder


@pytest.fixture
def place(hub: LocalHub, tmp_path: Path, monkeypatch) -> Path:
    """A folder with everything in it; the store's home is the only place where anything may appear."""
    point_at(hub, monkeypatch, tmp_path / "cache")
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(hub_http, "PATIENCE", 2.0)
    monkeypatch.setattr(hub_http, "NEED_TOKEN", set())
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path
    close_session()


def outside(place: Path) -> dict[str, bytes | str]:
    """Every file but those in the store's home and the Hub's own."""
    paths = [p for p in place.rglob("*") if not {"home", "hub"} & set(p.relative_to(place).parts[:1])]
    return {
        str(p): os.readlink(p) if p.is_symlink() else p.read_bytes() for p in paths if p.is_symlink() or p.is_file()
    }


def use(ref: str = REF) -> None:
    """As far as a model with its weights, and the ids of a text."""
    resolver = Resolver(Registry(create_manager(points=[])))
    spec = resolver.spec("backbone", ref)
    model_ref = ModelRef(backbone=spec.name, head=spec.head, outputs=spec.features.channels)
    load_pretrained(build(model_ref, resolver), model_ref, resolver)
    assert TextEncoder(spec.input, spec.files)(["the small model"]).shape == (1, 5)


def ends(place: Path, kind: type[PocketzooError], part: str, act: Callable[[], object] = use) -> PocketzooError:
    """One typed error with a next step, no canary, nothing outside, a clean store."""
    before = outside(place)
    with pytest.raises(PocketzooError) as caught:
        act()
    assert type(caught.value) is kind, caught.value
    assert part in caught.value.message
    assert caught.value.hint
    assert not list(place.rglob(CANARY))
    assert outside(place) == before
    assert Store().verify() == []
    assert not [p for p in (place / "home").rglob("*") if p.is_symlink()]
    assert Store().used() < 30_000_000, "nothing was unpacked"
    return caught.value


@pytest.mark.parametrize("name", REPOSITORIES)
def test_a_repository_that_means_harm(name, hub, place, sound):
    harm, kind, part = REPOSITORIES[name]
    shutil.copytree(sound, place / "repo")
    harm(place / "repo")
    hub.state.add_folder(REPO, place / "repo")
    ends(place, kind, part)


def test_the_same_repository_without_harm_works(hub, place, sound):
    """So each case above fails for its own reason; and what nobody asked for is neither fetched nor run."""
    shutil.copytree(sound, place / "repo")
    for name in ("vocab.txt", "merges.txt", "training_args.bin", "optimizer.safetensors"):
        pickled(name)(place / "repo")
    hub.state.add_folder(REPO, place / "repo")
    (found,) = pull([REF], registry=Registry(create_manager(points=[])))
    assert len(found.files) == 6
    use()
    assert not (place / CANARY).exists()
    assert pickle.loads((place / "repo" / "vocab.txt").read_bytes()) is None
    assert (place / CANARY).exists(), "a pickle that is loaded does make it"


# -- a Hub that means harm


def first(info: dict[str, Any], **fields: Any) -> dict[str, Any]:
    siblings = [{**s, **fields} if s["rfilename"] == WEIGHTS else s for s in info["siblings"]]
    return {**info, "siblings": siblings}


def a_link(info: dict[str, Any]) -> dict[str, Any]:
    """A listing that calls a link what it is, should the Hub ever do so: only names, sizes and digests count."""
    return first(info, rfilename="model.safetensors -> ../../canary", type="symlink", mode="120000")


ANSWERS: dict[str, tuple[Callable[[dict[str, Any]], Any], type[PocketzooError], str]] = {
    "a path outside the folder": (lambda i: first(i, rfilename=f"../../{CANARY}"), UnsafeFileError, CANARY),
    "an absolute path": (lambda i: first(i, rfilename=f"/tmp/{CANARY}"), UnsafeFileError, CANARY),
    "a path of Windows": (lambda i: first(i, rfilename=f"..\\{CANARY}"), UnsafeFileError, CANARY),
    "a link": (a_link, UnsafeFileError, "->"),
    "a digest that is a path": (
        lambda i: first(i, lfs={"size": 9, "sha256": f"../../../../{CANARY}"}), HubIntegrityError, "no digest"
    ),
    "a commit that is a path": (lambda i: {**i, "sha": f"../../../{CANARY}"}, HubIntegrityError, "commit"),
    "a name that is a path": (lambda i: {**i, "id": f"../../{CANARY}"}, HubIntegrityError, "commit"),
    "a commit that is not the pin": (lambda i: {**i, "sha": "f" * 40}, HubIntegrityError, "f" * 12),
}  # fmt: skip
FAULTS: dict[str, tuple[Fault, str]] = {
    "an ETag that is not a hash": (
        Fault("GET /acme/", "setheader", times=-1, headers={"ETag": '"../x"', "X-Linked-ETag": '"../x"'}), "its digest"
    ),
    "an ETag of other bytes": (
        Fault("GET /acme/", "setheader", times=-1, headers=dict.fromkeys(("ETag", "X-Linked-ETag"), "0" * 64)), "digest"
    ),
    "files of another commit": (
        Fault("GET /acme/", "setheader", times=-1, headers={"X-Repo-Commit": "f" * 40}), "answered with"
    ),
    "a gzip bomb on the way": (
        Fault("GET /cdn/", "body", times=-1, headers={"Content-Encoding": "gzip"}, body=BOMB),
        "compressed",
    ),
    "a config that is a gzip bomb on the way": (
        Fault("GET /acme/", "body", times=-1, headers={"Content-Encoding": "gzip"}, body=BOMB),
        "compressed",
    ),
    "a body without end": (Fault("GET /cdn/", "body", times=-1, body=bytes(40_000_000)), "longer"),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_a_listing_that_means_harm(name, hub, place, sound):
    hub.state.edit, kind, part = ANSWERS[name]
    commit = hub.state.add_folder(REPO, sound)
    ends(place, kind, part, lambda: use(f"{REF}@{commit}"))


@pytest.mark.parametrize("name", FAULTS)
def test_files_that_come_otherwise_than_stated(name, hub, place, sound):
    fault, part = FAULTS[name]
    hub.state.faults.append(Fault(**vars(fault)))
    hub.state.add_folder(REPO, sound)
    ends(place, HubIntegrityError, part)


# -- bundles from elsewhere


def manifest(**fields: Any) -> Harm:
    def harm(folder: Path) -> None:
        data = json.loads((folder / MANIFEST).read_text())
        put(folder, MANIFEST, json.dumps({**data, **fields}).encode())

    return harm


def listing(name: str) -> Harm:
    return manifest(files={name: {"size": 1, "sha256": "0" * 64}})


def sealed(harm: Harm) -> Harm:
    """With a manifest that vouches for the harm."""

    def both(folder: Path) -> None:
        known = read_bundle(folder).manifest
        harm(folder)
        seal(folder, known, known.files)

    return both


def reads_a_secret(folder: Path) -> None:
    """A graph whose weights are in another file, far away."""
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    tensor = max(graph.graph.initializer, key=lambda t: len(t.raw_data))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in {"location": "../../../secret", "offset": "0", "length": str(len(tensor.raw_data))}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    (canary(folder).parent / "secret").write_bytes(bytes(len(tensor.raw_data)))
    tensor.ClearField("raw_data")
    put(folder, "model.onnx", graph.SerializeToString())


NO_GRAPH = "is not an ONNX graph"
BUNDLES: dict[str, tuple[Harm, type[PocketzooError], str]] = {
    "a pickle called pocketzoo.json": (pickled(MANIFEST), BundleError, "is damaged"),
    "a manifest without end": (holds(MANIFEST, b"[" * 200_000), BundleError, "is damaged"),
    "a manifest that lists what is outside": (listing(f"../{CANARY}"), BundleError, "outside"),
    "a manifest that lists a file of the system": (listing("/etc/passwd"), BundleError, "outside"),
    "a manifest that lists an engine": (listing("model.tensorrt.engine"), BundleError, "is missing its file"),
    "a pickle called model.onnx": (sealed(pickled("model.onnx")), UnsafeFileError, NO_GRAPH),
    "a zip bomb called model.onnx": (sealed(holds("model.onnx", zipped(50_000_000))), UnsafeFileError, NO_GRAPH),
    "a link called model.onnx": (sealed(holds("model.onnx", b"../../../../etc/passwd")), UnsafeFileError, NO_GRAPH),
    "a graph that reads a file outside": (sealed(reads_a_secret), UnsafeFileError, "a path outside the folder"),
}


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_that_means_harm(name, hub, place, fitted, photos):
    harm, kind, part = BUNDLES[name]
    shutil.copytree(fitted.path, place / "repo")
    harm(place / "repo")
    hub.state.add_folder(REPO, place / "repo")
    (image,) = photos(place / "photos", {"": 1}).iterdir()
    ends(place, kind, part, lambda: pocketzoo.predict(REF, [image]))


def test_a_bundle_with_pickles_beside_it_works_and_they_are_not_read(hub, place, fitted, photos):
    shutil.copytree(fitted.path, place / "repo")
    for name in ("labels.txt", "labels.json", "other.safetensors", "other.onnx", "hook.py", "model.tensorrt.engine"):
        pickled(name)(place / "repo")
    hub.state.add_folder(REPO, place / "repo")
    (image,) = photos(place / "photos", {"": 1}).iterdir()
    assert pocketzoo.predict(REF, [image])
    assert not list(place.rglob(CANARY))
    assert not [p for p in (place / "home").rglob("*") if p.suffix in (".py", ".engine")]


# -- links in caches


CACHED: dict[str, Callable[[Path, Path], object]] = {
    "out of the cache": lambda link, place: link.symlink_to(place / "elsewhere"),
    "to the same bytes out of the cache": lambda link, place: link.symlink_to(place / "same"),
    "to itself": lambda link, place: link.symlink_to(link),
    "to a folder": lambda link, place: link.symlink_to(place),
    "to an endless file": lambda link, place: link.symlink_to("/dev/zero"),
    "to a pipe": lambda link, place: (os.mkfifo(place / "cache" / "pipe"), link.symlink_to(place / "cache" / "pipe")),
}


@pytest.mark.parametrize("name", CACHED)
def test_a_link_in_the_cache_of_the_hub_client_is_not_followed_out_of_it(name, hub, place, sound):
    """The file is fetched instead."""
    commit = hub.state.add_folder(REPO, sound)
    (place / "elsewhere").write_bytes(b"secret")
    shutil.copy(sound / WEIGHTS, place / "same")
    link = Path(hf_hub_download(REPO, WEIGHTS, revision=commit))
    link.unlink()
    CACHED[name](link, place)
    before = outside(place)
    hub.state.log.clear()
    (found,) = pull([f"{REF}@{commit}"], registry=Registry(create_manager(points=[])))
    assert [r for r in hub.state.log if "/cdn/" in r["path"]]
    stored = next(f for f in found.files if f.path == WEIGHTS)
    assert Store().blob(stored.sha256).read_bytes() == (sound / WEIGHTS).read_bytes()
    assert Store().verify() == []
    assert outside(place) == before


@pytest.mark.parametrize("same", [True, False], ids=["same bytes", "other bytes"])
def test_an_entry_of_the_store_that_became_a_link_is_not_used(same, hub, place, sound):
    registry = Registry(create_manager(points=[]))
    commit = hub.state.add_folder(REPO, sound)
    (found,) = pull([REF], registry=registry)
    blob = Store().blob(next(f for f in found.files if f.path == WEIGHTS).sha256)
    data = blob.read_bytes() if same else b"other"
    (place / "elsewhere").write_bytes(data)
    blob.unlink()
    blob.symlink_to(place / "elsewhere")
    assert {p.path for p in Store().verify()} >= {blob}
    (again,) = pull([f"{REF}@{commit}"], registry=registry)
    assert again.files == found.files
    assert not blob.is_symlink()
    assert blob.read_bytes() == (sound / WEIGHTS).read_bytes()
    assert (place / "elsewhere").read_bytes() == data
    assert Store().verify() == []


REFUSED = ("blobs", "blob", "repos")  # where a new commit must be written


@pytest.mark.parametrize("folder", ["blobs", "blob", "repos", "refs", "listings", "tmp", "locks", "aside", "damaged"])
def test_a_folder_of_the_store_that_became_a_link_is_not_written_through(folder, hub, place, sound, refused):
    registry = Registry(create_manager(points=[]))
    hub.state.add_folder(REPO, sound)
    (found,) = pull([REF], registry=registry)
    store, away = Store(), place / "away"
    away.mkdir()
    blob = store.blob(found.files[0].sha256)
    path = blob.parent if folder == "blob" else store.root / folder
    shutil.rmtree(path, ignore_errors=True)
    path.symlink_to(away)
    new = shutil.copytree(sound, place / "repo")
    put(new, "tokenizer.json", (sound / "tokenizer.json").read_bytes() + b"\n")
    hub.state.add_folder(REPO, new)
    through = refused(StorageError, path, hint="prune") if folder in REFUSED else contextlib.nullcontext()
    with through:
        pull([REF], registry=registry)
    store.prune()
    assert list(away.iterdir()) == []
    pull([REF], registry=registry)
    assert list(away.iterdir()) == []
    assert store.verify() == []
