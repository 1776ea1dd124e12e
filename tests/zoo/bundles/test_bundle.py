"""Bundles on disk: what was written is read back, and whatever was done to it since is noticed and named."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import pocketzoo
from pocketzoo.core.errors import BundleError, PocketzooError
from pocketzoo.core.renamed import RenamedWarning
from pocketzoo.core.typed import to_plain
from pocketzoo.zoo.bundles.bundle import (
    Bundle,
    check_place,
    graph_name,
    put_bundle,
    read_bundle,
    updating,
    writing,
)
from pocketzoo.zoo.bundles.manifest import FORMAT, MANIFEST, FileEntry, Manifest, ModelRef, read_manifest
from pocketzoo.zoo.bundles.step_record import StepRecord, StepReport, tensors_name
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.processors.open_processor import describe_config

NEW = Manifest(
    name="toy",
    model=ModelRef(backbone="tinynet", head="linear", outputs=2),
    processor=describe_config(InputSpec(shape=("batch", 1, 28, 28), mean=(0.5,), std=(0.5,), resize=28)),
    labels=("cät", "dog"),
    license="MIT",
    parameters=12,
    macs=34,
    steps=(StepRecord(compressor="prune", config={"ratio": 0.3}, plan={"axes": {}}, report=StepReport(seconds=2.0)),),
    metrics={"test_accuracy": 0.5},
    provenance={"plugin": "toy", "nested": {"a": [1, None, True, 2.5]}},
)


def graph(name: bytes) -> bytes:
    """A graph without a node: what opening a bundle reads of one is tested in test_safety.py."""
    return b"\x12" + bytes([len(name)]) + name


FILES = {
    "model.safetensors": b"weights" * 100,
    "model.onnx": graph(b"graph" * 20),
    "model.int8.cpu.onnx": graph(b"int8" * 20),
}


def write(path: Path, manifest: Manifest = NEW, files: dict[str, bytes] = FILES) -> Bundle:
    with writing(path) as draft:
        for name, data in files.items():
            target = "cpu" if "int8" in name else ""
            draft.mark(name, target=target, precision="int8" if target else "float32").write_bytes(data)
        draft.manifest = manifest
    return read_bundle(path)


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return write(tmp_path / "toy")


def edit(path: Path, **changes: Any) -> None:
    data = json.loads((path / MANIFEST).read_text("utf8"))
    (path / MANIFEST).write_text(json.dumps({**data, **changes}), "utf8")


def edit_files(path: Path, name: str, data: bytes = b"") -> None:
    """List one more file, with its right digest."""
    files = json.loads((path / MANIFEST).read_text("utf8"))["files"]
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    edit(path, files={**files, name: entry})


# -- round trip


def test_what_was_written_is_read_back(bundle):
    manifest = bundle.manifest
    assert replace(manifest, created="", files={}) == replace(NEW, created="", files={})
    assert set(manifest.files) == {*FILES, "README.md"}
    for name, data in FILES.items():
        assert bundle.file(name).read_bytes() == data
        entry = manifest.files[name]
        assert (entry.size, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert manifest.files["model.int8.cpu.onnx"].target == "cpu"
    assert manifest.files["model.int8.cpu.onnx"].precision == "int8"
    assert manifest.files["model.onnx"].precision == "float32"
    assert manifest.files["README.md"].precision == ""


def test_the_manifest_says_when_and_with_what(bundle):
    from datetime import datetime, timezone

    created = datetime.fromisoformat(bundle.manifest.created)
    assert abs((datetime.now(timezone.utc) - created).total_seconds()) < 1800  # in which zone, that is
    assert bundle.manifest.pocketzoo == pocketzoo.__version__
    assert bundle.manifest.format == FORMAT


def test_the_manifest_is_json_for_humans(bundle):
    text = (bundle.path / MANIFEST).read_text("utf8")
    assert json.loads(text) == to_plain(bundle.manifest)
    assert text.endswith("}\n")
    assert "cät" in text
    assert len(text.splitlines()) > 20


def test_the_card_is_in_the_bundle(bundle):
    card = (bundle.path / "README.md").read_text("utf8")
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "mit"
    assert "# toy" in card
    assert "test_accuracy: 0.5" in card


def test_verify_is_read_bundle(bundle):
    assert pocketzoo.verify(bundle.path) == bundle


def test_a_written_bundle_can_be_read_by_others(fitted):
    """A server may run as another user than the one who fitted the model."""
    for path in [fitted.path, *fitted.path.iterdir()]:
        assert path.stat().st_mode & 0o044 == 0o044, path.name


@pytest.mark.parametrize(
    ("target", "name"), [("cpu", "model.int8.cpu.onnx"), ("", "model.onnx"), ("tensorrt", "model.onnx")]
)
def test_the_graph_for_a_target(bundle, target, name):
    assert bundle.graph(target) == bundle.path / name


def test_graphs_by_target(bundle):
    assert bundle.encodings() == {"": bundle.path / "model.onnx", "cpu": bundle.path / "model.int8.cpu.onnx"}
    assert bundle.graph() == bundle.path / "model.int8.cpu.onnx"
    assert (graph_name(), graph_name("cpu")) == ("model.onnx", "model.int8.cpu.onnx")


def test_a_bundle_without_graph_says_so(tmp_path, refused):
    bundle = write(tmp_path / "toy", files={"model.safetensors": b"x"})
    with refused(BundleError, "model.onnx"):
        bundle.graph()


def test_a_file_that_is_not_listed_is_named_with_those_that_are(bundle, refused):
    with refused(BundleError, "has no model.engine", hint="model.onnx"):
        bundle.file("model.engine")


# -- damage


@pytest.mark.parametrize("name", [*FILES, "README.md"])
@pytest.mark.parametrize("at", [0, 7, -1])
def test_a_flipped_byte_is_noticed(bundle, refused, name, at):
    path = bundle.path / name
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with refused(BundleError, path, "is damaged", hint="rebuild the bundle"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("name", [*FILES, "README.md"])
@pytest.mark.parametrize("change", ["shorter", "longer", "empty"])
def test_a_file_of_another_size_is_noticed(bundle, refused, name, change):
    path = bundle.path / name
    data = path.read_bytes()
    path.write_bytes({"shorter": data[:-1], "longer": data + b"\n", "empty": b""}[change])
    with refused(BundleError, path, "is damaged"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("name", [*FILES, "README.md"])
@pytest.mark.parametrize("instead", ["nothing", "folder"])
def test_a_missing_file_is_named(bundle, refused, name, instead):
    (bundle.path / name).unlink()
    if instead == "folder":
        (bundle.path / name).mkdir()
    with refused(BundleError, bundle.path, f"is missing its file {name}", hint="restore it"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("name", ["evil.so", "model.engine", "model.int8.tensorrt.onnx", ".hidden", "sub/x"])
def test_an_added_file_is_never_read(bundle, name):
    """A note or a .DS_Store must not make a bundle useless; what the manifest does not vouch for is not looked at."""
    (bundle.path / name).parent.mkdir(exist_ok=True)
    (bundle.path / name).write_bytes(b"x")
    again = read_bundle(bundle.path)
    assert again == bundle
    assert name not in again.manifest.files
    assert (bundle.path / name) not in again.encodings().values()


@pytest.mark.parametrize("name", FILES)
def test_two_files_exchanged_are_noticed(bundle, refused, name):
    others = [n for n in FILES if n != name]
    (bundle.path / name).write_bytes(FILES[others[0]])
    with refused(BundleError, name, "is damaged"):
        read_bundle(bundle.path)


@pytest.mark.parametrize(
    "name", ["../x", "../../etc/passwd", "/etc/hostname", "sub/../../x", "a/../../toy/../x", "..", "./../x"]
)
def test_a_manifest_that_climbs_out_is_refused(bundle, refused, name):
    (bundle.path.parent / "x").write_bytes(b"outside")
    edit_files(bundle.path, name, b"outside")
    with refused(BundleError, "points outside itself", name, hint="do not use"):
        read_bundle(bundle.path)


def test_a_symlink_is_refused(bundle, refused):
    outside = bundle.path.parent / "outside"
    outside.write_bytes(FILES["model.onnx"])
    (bundle.path / "model.onnx").unlink()
    (bundle.path / "model.onnx").symlink_to(outside)
    with refused(BundleError, "points outside itself", "model.onnx", hint="do not use"):
        read_bundle(bundle.path)


def test_a_symlink_to_a_folder_is_refused(bundle, refused):
    outside = bundle.path.parent / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"outside")
    (bundle.path / "sub").symlink_to(outside)
    edit_files(bundle.path, "sub/x", b"outside")
    with refused(BundleError, "points outside itself", hint="do not use"):
        read_bundle(bundle.path)


def test_a_bundle_may_be_reached_through_a_symlink(bundle, tmp_path):
    (tmp_path / "link").symlink_to(bundle.path)
    assert read_bundle(tmp_path / "link").manifest == bundle.manifest


@pytest.mark.parametrize("newer", [FORMAT + 1, 99])
def test_a_newer_format_says_to_upgrade(bundle, refused, newer):
    edit(bundle.path, format=newer, something_new={"a": 1})
    with refused(BundleError, f"has format {newer}, this version reads {FORMAT}", hint="upgrade"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("value", ["1", "newest", None, [1], {"a": 1}, 0.5, True])
def test_a_format_that_is_no_number_is_damage(bundle, refused, value):
    edit(bundle.path, format=value)
    with refused(BundleError, "is damaged"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("keep", [0, 1, 2, 100, 0.3, 0.9, -3])
def test_a_manifest_cut_short_is_damage(bundle, refused, keep):
    path = bundle.path / MANIFEST
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with refused(BundleError, path, "is damaged", hint="restore it"):
        read_bundle(bundle.path)


@pytest.mark.parametrize(
    "data",
    [b"null", b"[]", b"3", b'"text"', b"{}", b"\xff\xfe", b"[" * 100_000, b'{"name": 1e999}', b"nonsense", b"\0" * 100],
    ids=lambda d: repr(d[:12]),
)
def test_a_manifest_that_is_none_is_damage(bundle, refused, data):
    (bundle.path / MANIFEST).write_bytes(data)
    with refused(BundleError, "is damaged"):
        read_bundle(bundle.path)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": "dog"},
        {"labels": [1, 2]},
        {"macs": "many"},
        {"macs": True},
        {"parameters": 1.5},
        {"model": None},
        {"model": {"backbone": "b"}},
        {"input": {"shape": [1]}},
        {"files": []},
        {"files": {"x": {"sha256": 1, "size": 1}}},
        {"files": {"x": {"sha256": "0", "size": 1, "extra": 2}}},
        {"steps": [{"kind": "prune"}]},
        {"unknown_field": 1},
        {"files": {"n" * 300: {"sha256": "0", "size": 1}}},
        {"files": {"a\0b": {"sha256": "0", "size": 1}}},
        {"files": {"": {"sha256": "0", "size": 1}}},
        {"files": {".": {"sha256": "0", "size": 1}}},
    ],
    ids=lambda c: json.dumps(c)[:50],
)
def test_a_manifest_with_a_wrong_field_is_a_bundle_error(bundle, refused, changes):
    edit(bundle.path, **changes)
    with refused(BundleError):
        read_bundle(bundle.path)


@given(st.data())
def test_any_byte_flipped_in_the_manifest_is_noticed_or_means_the_same(fitted_manifest, tmp_path_factory, data):
    """Never another exception; the manifest itself has no digest, so a letter of a name may change unseen."""
    folder, raw = fitted_manifest
    changed = bytearray(raw)
    changed[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / MANIFEST).write_bytes(changed)
    try:
        again = read_bundle(folder)
    except PocketzooError as error:
        again = error
    assert isinstance(again, (Bundle, BundleError))
    if isinstance(again, Bundle):
        assert {n: e.sha256 for n, e in again.manifest.files.items()} == {
            n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in again.manifest.files
        }


@pytest.fixture(scope="module")
def fitted_manifest(tmp_path_factory) -> tuple[Path, bytes]:
    bundle = write(tmp_path_factory.mktemp("flips") / "toy")
    return bundle.path, (bundle.path / MANIFEST).read_bytes()


# -- what is no bundle


def test_a_path_that_is_not_there(refused, tmp_path):
    with refused(BundleError, f"there is no bundle at {tmp_path / 'x'}", hint="pocketzoo fit"):
        read_bundle(tmp_path / "x")


@pytest.mark.parametrize("what", ["empty folder", "folder", "file", "manifest is a folder"])
def test_a_path_that_is_no_bundle(refused, tmp_path, what):
    path = tmp_path / "x"
    if what == "file":
        path.write_text("x")
    else:
        path.mkdir()
    if what == "folder":
        (path / "photo.jpg").write_text("x")
    if what == "manifest is a folder":
        (path / MANIFEST).mkdir()
    with refused(BundleError, f"{path} is not a bundle", MANIFEST, hint="pocketzoo fit"):
        read_bundle(path)


# -- writing


@pytest.mark.parametrize("what", ["folder with files", "file", "device"])
def test_what_is_no_bundle_is_never_written_over(refused, tmp_path, what):
    path = Path(os.devnull) if what == "device" else tmp_path / "x"
    if what == "file":
        path.write_text("mine")
    if what == "folder with files":
        path.mkdir()
        (path / "thesis.tex").write_text("mine")
    for force in (False, True):
        with refused(BundleError, f"{path} exists and is not a bundle", hint="-o"), writing(path, force=force):
            raise AssertionError("never reached")
    if what == "file":
        assert path.read_text() == "mine"
    if what == "folder with files":
        assert (path / "thesis.tex").read_text() == "mine"


def test_an_empty_folder_may_become_a_bundle(tmp_path):
    (tmp_path / "x").mkdir()
    assert write(tmp_path / "x").manifest.name == "toy"


def test_a_bundle_is_replaced_whole(bundle):
    again = write(bundle.path, replace(NEW, name="other"), {"model.onnx": graph(b"other")})
    assert again.manifest.name == "other"
    assert {p.name for p in bundle.path.iterdir()} == {"model.onnx", "README.md", MANIFEST}


@pytest.mark.parametrize("via", ["its path", "a link"])
def test_a_bundle_that_is_not_to_be_replaced_is_left_alone(bundle, refused, tmp_path, via):
    path = bundle.path
    if via == "a link":
        path = tmp_path / "link"
        path.symlink_to(bundle.path)
    with refused(BundleError, f"{path} is already a finished bundle", hint="--force"), writing(path, force=False):
        raise AssertionError("never reached")
    assert read_bundle(bundle.path) == bundle


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("other", ["bundle", "folder", "file"])
def test_what_comes_to_lie_there_while_a_bundle_is_written_is_not_lost(refused, tmp_path, other, force):
    """A bundle goes only where it was said that one may be replaced; what is none never does."""
    path = tmp_path / "x"

    def put() -> None:
        with writing(path, force=force) as draft:
            draft.manifest = replace(NEW, name="late")
            if other == "bundle":
                write(path)
            elif other == "folder":
                path.mkdir()
                (path / "thesis.tex").write_text("mine")
            else:
                path.write_text("mine")

    if other == "bundle" and force:
        put()
        assert read_bundle(path).manifest.name == "late"
    else:
        says = "is already a finished bundle" if other == "bundle" else "exists and is not a bundle"
        with refused(BundleError, str(path), says, hint="-o"):
            put()
        assert other != "bundle" or read_bundle(path).manifest.name == "toy"
        assert other != "folder" or (path / "thesis.tex").read_text() == "mine"
        assert other != "file" or path.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["x"], "nothing half-written beside it"


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()], ids=repr)
def test_a_draft_that_fails_leaves_the_old_bundle(bundle, error):
    def fail() -> None:
        with writing(bundle.path) as draft:
            (draft.folder / "model.onnx").write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert read_bundle(bundle.path) == bundle
    assert [p.name for p in bundle.path.parent.iterdir()] == ["toy"]


def test_a_draft_without_manifest_is_our_mistake(tmp_path):
    with pytest.raises(ValueError, match="manifest"), writing(tmp_path / "x"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_is_written_where_it_was_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with writing(Path("toy")) as draft:
        monkeypatch.chdir("/")
        draft.manifest = NEW
    assert draft.path == tmp_path / "toy"
    assert read_bundle(tmp_path / "toy").manifest.name == "toy"


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,8}\.(txt|bin|engine)", fullmatch=True), st.binary(max_size=99), max_size=5)
)
def test_any_files_survive(tmp_path_factory, files):
    bundle = write(tmp_path_factory.mktemp("any") / "toy", files=files)
    assert {n: (bundle.path / n).read_bytes() for n in bundle.manifest.files if n != "README.md"} == files


# -- updating


def test_updating_keeps_files_and_what_they_run_on(bundle):
    with updating(bundle) as draft:
        draft.mark("model.engine", target="tensorrt-rtx", precision="int8").write_bytes(b"engine")
    again = read_bundle(bundle.path)
    assert set(again.manifest.files) == {*bundle.manifest.files, "model.engine"}
    for name, data in FILES.items():
        assert again.manifest.files[name] == bundle.manifest.files[name]
        assert again.file(name).read_bytes() == data
    entry = again.manifest.files["model.engine"]
    assert (entry.target, entry.precision, entry.size) == ("tensorrt-rtx", "int8", 6)
    assert replace(again.manifest, created="", files={}) == replace(bundle.manifest, created="", files={})


@pytest.mark.parametrize(
    "call",
    [graph_name, lambda bad: graph_name("cpu", bad), lambda bad: graph_name(graph=bad),
     lambda bad: tensors_name(0, bad)],
)  # fmt: skip
@pytest.mark.parametrize("bad", ["a/b", "../x", "a\\b", ".x", "a b", "-x", "con"])
def test_no_file_is_named_after_what_could_be_a_path(call, bad, refused):
    with refused(BundleError, f"{bad!r} cannot be part of a file's name", hint="use letters, digits"):
        call(bad)


def test_a_file_is_not_written_over_another_of_the_bundle(bundle, refused):
    """Whatever a step calls what it keeps."""
    before = (bundle.path / "model.safetensors").read_bytes()
    two = refused(BundleError, "model.safetensors would be two files of one bundle", hint="rename")
    with two, updating(bundle) as draft:
        draft.mark("model.safetensors", precision="int6").write_bytes(b"tensors")
    assert (bundle.path / "model.safetensors").read_bytes() == before
    with updating(bundle) as draft:
        draft.mark(tensors_name(0), precision="int6").write_bytes(b"tensors")
        draft.mark(tensors_name(0), precision="int6").write_bytes(b"other tensors")
    assert (bundle.path / "step-1.tensors.safetensors").read_bytes() == b"other tensors"


def test_updating_may_change_a_file(bundle):
    with updating(bundle) as draft:
        (draft.folder / "model.onnx").write_bytes(graph(b"better"))
        draft.manifest = replace(draft.manifest, metrics={"test_accuracy": 0.75})
    again = read_bundle(bundle.path)
    assert again.file("model.onnx").read_bytes() == graph(b"better")
    assert "test_accuracy: 0.75" in again.file("README.md").read_text()


def test_updating_that_fails_changes_nothing(bundle):
    def fail() -> None:
        with updating(bundle) as draft:
            (draft.folder / "model.onnx").unlink()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert read_bundle(bundle.path) == bundle


def test_updating_lists_nothing_that_was_not_listed(bundle):
    (bundle.path / "stray.txt").write_text("x")
    with updating(bundle) as draft:
        assert not (draft.folder / "stray.txt").exists()
    assert (bundle.path / "stray.txt").read_text() == "x"
    assert "stray.txt" not in read_bundle(bundle.path).manifest.files


# -- a real one


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors", "README.md"])
def test_a_fitted_bundle_notices_damage(fitted_copy, refused, name):
    path = fitted_copy.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x80
    path.write_bytes(data)
    with refused(BundleError, path, "is damaged"):
        read_bundle(fitted_copy.path)


def test_a_fitted_bundle_is_complete(fitted):
    assert set(fitted.manifest.files) == {"README.md", "model.onnx", "model.safetensors"}
    assert fitted.manifest.labels == tuple("0123456789")
    assert fitted.manifest.files["model.onnx"] == replace(fitted.manifest.files["model.onnx"], precision="float32")
    assert isinstance(fitted.manifest.files["model.onnx"], FileEntry)


def test_a_bundle_may_be_moved_and_copied(fitted, tmp_path):
    shutil.copytree(fitted.path, tmp_path / "elsewhere")
    assert read_bundle(tmp_path / "elsewhere").manifest == fitted.manifest


def test_a_path_may_be_a_string(fitted):
    assert read_bundle(str(fitted.path)).manifest == fitted.manifest


def test_what_was_finished_by_another_in_this_moment_is_not_replaced(tmp_path, monkeypatch, refused):
    """Between the look at the place and the move there is time for another run to end."""
    done, place = write(tmp_path / "new").path, tmp_path / "out"
    looked = []

    def look(path: Path, *, force: bool) -> None:
        looked.append(force)
        check_place(path, force=force)
        if not path.exists():
            shutil.copytree(done, path)

    monkeypatch.setattr("pocketzoo.zoo.bundles.bundle.check_place", look)
    with refused(BundleError, "is already a finished bundle", hint="--force"):
        put_bundle(done, place, force=False)
    assert looked == [False, False]
    assert read_bundle(done).manifest.name == read_bundle(place).manifest.name == "toy"


def test_a_bundle_that_is_replaced_is_where_the_new_one_was(tmp_path):
    new, place = write(tmp_path / "new", replace(NEW, name="new")).path, write(tmp_path / "out").path
    put_bundle(new, place, force=True)
    assert (read_bundle(place).manifest.name, read_bundle(new).manifest.name) == ("new", "toy")


@pytest.mark.parametrize(("kind", "force", "text"), [
    ("bundle", False, "already a finished bundle"), ("bundle", True, ""), ("folder", True, "is not a bundle"),
    ("file", True, "is not a bundle"), ("empty", False, ""), ("nothing", False, ""),
])  # fmt: skip
def test_places_that_a_bundle_may_be_written_to(kind, force, text, tmp_path, refused):
    place = tmp_path / "out"
    if kind == "bundle":
        write(place)
    elif kind == "file":
        place.write_text("")
    elif kind != "nothing":
        place.mkdir()
        if kind == "folder":
            (place / "own").write_text("")
    if not text:
        check_place(place, force=force)
        return
    with refused(BundleError, text):
        check_place(place, force=force)


def test_the_time_in_a_manifest_is_in_whole_seconds_of_utc(tmp_path):
    for number in range(3):  # by chance one time has no fraction
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", write(tmp_path / str(number)).manifest.created)


# -- several graphs


def test_the_graphs_of_a_model_are_named_and_each_is_the_targets_own_or_float(tmp_path):
    with writing(tmp_path / "b") as draft:
        for graph, target in (("model", ""), ("decoder", ""), ("encoder", ""), ("decoder", "cpu")):
            path = draft.mark(graph_name(target, graph=graph), target=target, graph=graph)
            path.write_bytes(FILES["model.onnx"])
        draft.manifest = replace(NEW, driver="generate")
    bundle = read_bundle(tmp_path / "b")
    names = {target: {name: path.name for name, path in bundle.graphs(target).items()} for target in ("", "cpu", "x")}
    floats = {name: f"{name}.onnx" for name in ("decoder", "encoder", "model")}
    assert names == {"": floats, "cpu": {**floats, "decoder": "decoder.int8.cpu.onnx"}, "x": floats}
    assert bundle.encodings() == {"": bundle.path / "model.onnx"}
    assert bundle.encodings("decoder").keys() == {"", "cpu"}
    assert bundle.targets() == ("", "cpu")
    assert bundle.graph("cpu", "decoder").name == "decoder.int8.cpu.onnx"
    assert bundle.graph("cpu") == bundle.path / "model.onnx"
    with pytest.raises(BundleError, match=r"has no image\.onnx"):
        bundle.graph("cpu", "image")


def test_graphs_without_a_target_are_what_they_were_with_a_warning(tmp_path):
    with writing(tmp_path / "b") as draft:
        draft.mark(graph_name()).write_bytes(FILES["model.onnx"])
        draft.manifest = NEW
    with pytest.warns(RenamedWarning, match=r"'graphs\(\)' was renamed to 'encodings\(\)'"):
        assert read_bundle(tmp_path / "b").graphs() == {"": tmp_path / "b" / "model.onnx"}


def test_an_early_manifest_calls_graphs_parts():
    entry = {"sha256": "", "size": 0}
    data = to_plain(NEW) | {"files": {"a.onnx": entry, "decoder.onnx": entry | {"part": "decoder"}}}
    del data["driver"]
    manifest = read_manifest(data)
    assert manifest.files["decoder.onnx"].graph == "decoder"
    assert (manifest.driver, manifest.files["a.onnx"].graph) == ("generate", "")
    alone = data | {"files": {"a.onnx": entry | {"part": ""}}}
    assert read_manifest(alone).driver == "single"
    with pytest.warns(RenamedWarning):
        assert FileEntry(sha256="", size=0, part="x") == FileEntry(sha256="", size=0, graph="x")
