"""Bundles that several processes change at once: nothing is lost, no reader sees half, no signature goes unasked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pocketzoo.core.errors import BundleError, BusyError, SignatureError, StorageError
from pocketzoo.core.files import TEMPORARY
from pocketzoo.core.progress import Silent
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle, updating, writing
from pocketzoo.zoo.bundles.bundle_lock import changing
from pocketzoo.zoo.bundles.manifest import SIGNATURE, Manifest, ModelRef
from pocketzoo.zoo.bundles.signing import verified
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.processors.open_processor import describe_config

SPEC = InputSpec(shape=("batch", 1, 2, 2), mean=(0.0,), std=(1.0,), resize=2)
MANIFEST = Manifest(
    name="x",
    model=ModelRef(backbone="b", head="h", outputs=2),
    processor=describe_config(SPEC),
    labels=("a", "b"),
    license="MIT",
    parameters=1,
    macs=0,
)


def make(path: Path, weights: bytes = b"weights", **changes) -> Bundle:
    with writing(path) as draft:
        (draft.folder / "model.safetensors").write_bytes(weights * 20_000)
        draft.manifest = replace(MANIFEST, **changes)
    return read_bundle(path)


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return make(tmp_path / "x")


# Opens the bundle once, and then adds to what it is by then: a file, and a number of its own.
ADDER = """
import sys
from dataclasses import replace
from pathlib import Path
from pocketzoo.zoo.bundles.bundle import read_bundle, updating

opened, name = read_bundle(Path(sys.argv[1])), sys.argv[2]
print("opened", flush=True)
sys.stdin.readline()
for i in range(4):
    with updating(opened) as draft:
        draft.mark(f"{name}.{i}.engine", target=name, backend="b").write_bytes(name.encode() * 5_000)
        layers = {**draft.manifest.layers, f"{name}.{i}": ()}
        draft.manifest = replace(draft.manifest, layers=layers)
"""
HOLDER = """
import sys
from pathlib import Path
from pocketzoo.zoo.bundles.bundle import read_bundle, updating
with updating(read_bundle(Path(sys.argv[1]))) as draft:
    print("holding", flush=True)
    sys.stdin.readline()
"""


def start(script: str, *words: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", script, *map(str, words)]
    return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_what_several_processes_add_is_all_there(bundle):
    """And who reads meanwhile gets a whole bundle each time, and is never held up."""
    workers = [start(ADDER, bundle.path, f"w{i}") for i in range(4)]
    seen: list[int] = []
    try:
        assert all(each.stdout and each.stdout.readline() == "opened\n" for each in workers)
        for each in workers:
            assert each.stdin
            each.stdin.write("\n")
            each.stdin.flush()
        while any(each.poll() is None for each in workers):
            seen.append(len(read_bundle(bundle.path).manifest.files))
    finally:
        for each in workers:
            each.communicate()
    assert [each.returncode for each in workers] == [0] * 4
    manifest = read_bundle(bundle.path).manifest
    names = {f"w{i}.{j}" for i in range(4) for j in range(4)}
    assert set(manifest.layers) == names
    assert {f"{name}.engine" for name in names} <= set(manifest.files)
    assert seen == sorted(seen), "what was added stays"
    assert os.listdir(bundle.path.parent) == ["x"]


def test_a_killed_holder_frees_it_and_what_it_left_is_collected(bundle):
    holder = start(HOLDER, bundle.path)
    assert holder.stdout
    assert holder.stdout.readline() == "holding\n"
    assert read_bundle(bundle.path).manifest == bundle.manifest, "readers are not held up"
    with pytest.raises(BusyError), changing(bundle.path, patience=0.1):
        raise AssertionError("never reached")
    assert len(os.listdir(bundle.path.parent)) == 2, "its draft, which nobody else removes"
    killer = threading.Timer(0.2, holder.kill)
    killer.start()
    with updating(bundle) as draft:
        (draft.folder / "more").write_bytes(b"more")
    killer.join()
    holder.communicate()
    assert "more" in read_bundle(bundle.path).manifest.files
    assert os.listdir(bundle.path.parent) == ["x"]


def test_who_waits_says_for_whom(bundle, monkeypatch):
    said = []

    class Heard(Silent):
        def say(self, text):
            said.append(text)
            holder.communicate("\n")

    monkeypatch.setattr("pocketzoo.zoo.bundles.bundle_lock.SILENCE", 0.1)
    with updating(bundle, progress=Heard()):
        pass
    assert said == [], "nobody holds it"
    holder = start(HOLDER, bundle.path)
    assert holder.stdout
    assert holder.stdout.readline() == "holding\n"
    name = f"process {holder.pid}" if os.path.exists("/proc/locks") else "another process"
    with pytest.raises(BusyError, match=f"{name} is changing"), changing(bundle.path, patience=0.0):
        raise AssertionError("never reached")
    with updating(bundle, progress=Heard()):
        pass
    assert said == [f"waiting for {bundle.path}, which {name} is changing"]


# Each is a process, and all begin at once: four exports, two benches, a signature, and one that makes another of it.
TARGETS = ("openvino", "cuda", "tensorrt-10", "tensorrt-11")
LINES = (
    *(f"export L --to onnx --target {target} --force" for target in TARGETS),
    *(f"bench L --seconds 0 --no-memory --batch 1 --threads {n} --save --force" for n in (1, 2)),
    "sign L --key key",
    "pack L -o M",
)


@pytest.mark.slow
def test_eight_commands_at_once_lose_nothing(compressed, tmp_path):
    """Of any change after the signature, that is dropped, as ``--force`` asks; else it is there and true."""
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric import ec

    shutil.copytree(compressed.path, tmp_path / "L")
    secret = ec.generate_private_key(ec.SECP256R1())
    form = to.Encoding.PEM
    (tmp_path / "key").write_bytes(secret.private_bytes(form, to.PrivateFormat.PKCS8, to.NoEncryption()))
    public = tmp_path / "key.pub"
    public.write_bytes(secret.public_key().public_bytes(form, to.PublicFormat.SubjectPublicKeyInfo))
    processes = []
    for line in LINES:
        command = [sys.executable, "-m", "pocketzoo", *line.split()]
        processes.append(subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE))
    for line, process in zip(LINES, processes, strict=True):
        _, error = process.communicate()
        assert process.returncode == 0, (line, error.decode())
    after = read_bundle(tmp_path / "L")
    before = compressed.manifest
    for target in TARGETS:
        assert [name for name, entry in after.manifest.files.items() if entry.target == target], target
    assert {row.threads for row in after.manifest.measurements} >= {1, 2}
    assert before.files.items() - {("README.md", before.files["README.md"])} <= after.manifest.files.items()
    assert before.measurements == after.manifest.measurements[: len(before.measurements)]
    if (after.path / SIGNATURE).exists():
        assert verified(after.path, key=public).bundle.manifest == after.manifest
    assert read_bundle(tmp_path / "M").manifest.labels == before.labels
    assert sorted(os.listdir(tmp_path)) == ["L", "M", "key", "key.pub"]


def test_who_replaces_a_bundle_waits_for_who_changes_it(bundle):
    """Else the change would come last, and bring the replaced model back."""
    holder = start(HOLDER, bundle.path)
    assert holder.stdout
    assert holder.stdin
    assert holder.stdout.readline() == "holding\n"
    replacing = threading.Thread(target=make, args=(bundle.path, b"other"))
    replacing.start()
    time.sleep(0.2)
    assert read_bundle(bundle.path).manifest == bundle.manifest
    holder.communicate("\n")
    replacing.join()
    assert (bundle.path / "model.safetensors").read_bytes().startswith(b"other")


@pytest.mark.parametrize("change", [{"weights": b"other"}, {"labels": ("c", "d")}, {"parameters": 2}], ids=str)
def test_nothing_is_added_to_another_model(bundle, change, refused):
    make(bundle.path, **change)
    with refused(BundleError, "was changed by another process", hint="again"), updating(bundle):
        raise AssertionError("never reached")


def test_damage_is_not_sealed_as_if_it_were_right(bundle, refused, tmp_path):
    (bundle.path / "model.safetensors").write_bytes(b"damaged")
    for place in (None, tmp_path / "copy"):
        with refused(BundleError, "was changed"), updating(bundle, place):
            raise AssertionError("never reached")
    assert not (tmp_path / "copy").exists()


def test_what_else_lies_in_the_folder_stays_there(bundle):
    """A bundle may be a clone of a repository, or have somebody's notes in it: they are not lost."""
    (bundle.path / ".git" / "objects").mkdir(parents=True)
    (bundle.path / ".git" / "objects" / "ab").write_bytes(b"object")
    (bundle.path / "notes.txt").write_text("mine")
    (bundle.path / "link").symlink_to("notes.txt")
    (bundle.path / f".x.1{TEMPORARY}").write_bytes(b"of a killed process")
    with updating(bundle) as draft:
        draft.mark("more.engine", target="t", backend="b").write_bytes(b"more")
    after = read_bundle(bundle.path)
    assert set(after.manifest.files) == {*bundle.manifest.files, "more.engine"}
    assert (bundle.path / ".git" / "objects" / "ab").read_bytes() == b"object"
    assert (bundle.path / "notes.txt").read_text() == "mine"
    assert os.readlink(bundle.path / "link") == "notes.txt"
    assert not list(bundle.path.glob(f"*{TEMPORARY}"))


def test_what_cannot_be_copied_along_is_named_and_nothing_changes(bundle, refused):
    (bundle.path / "notes").mkdir()
    os.mkfifo(bundle.path / "notes" / "pipe")
    with refused(StorageError, f"cannot copy {bundle.path / 'notes'}", hint="move it out"), updating(bundle):
        pass
    assert os.listdir(bundle.path.parent) == ["x"]
    assert read_bundle(bundle.path).manifest == bundle.manifest


def test_a_copy_is_of_what_was_opened_whatever_is_added_meanwhile(bundle, tmp_path):
    with updating(bundle) as draft:
        (draft.folder / "more").write_bytes(b"more")
    with updating(bundle, tmp_path / "copy") as draft:
        assert draft.manifest == bundle.manifest
    assert "more" not in read_bundle(tmp_path / "copy").manifest.files


def test_a_signed_bundle_is_changed_by_force_alone(bundle, refused):
    (bundle.path / SIGNATURE).write_text("{}")
    again = f"give --force, and sign it again: pocketzoo sign {bundle.path} --key KEY"
    with refused(SignatureError, f"{bundle.path} is signed", hint=again), updating(bundle):
        raise AssertionError("never reached")
    assert (bundle.path / SIGNATURE).exists()
    with updating(bundle, bundle.path.parent / "copy"):
        pass
    with updating(bundle, force=True):
        pass
    assert not (bundle.path / SIGNATURE).exists()


def test_a_read_only_bundle_stays_as_it_is(bundle, refused):
    bundle.path.chmod(0o555)
    try:
        with refused(StorageError, f"cannot change {bundle.path}: it is read-only", hint="copy it"), updating(bundle):
            raise AssertionError("never reached")
    finally:
        bundle.path.chmod(0o755)
    assert os.listdir(bundle.path.parent) == ["x"]


def test_what_is_gone_is_said(bundle, refused):
    shutil.rmtree(bundle.path)
    with refused(BundleError, "there is no bundle"), updating(bundle):
        raise AssertionError("never reached")


def test_a_link_leads_to_the_same_lock(bundle, tmp_path):
    (tmp_path / "link").symlink_to(bundle.path)
    with changing(bundle.path), pytest.raises(BusyError), changing(tmp_path / "link", patience=0.0):
        raise AssertionError("never reached")


def test_where_folders_have_no_locks_a_file_has(bundle, monkeypatch):
    """As on NFS."""
    from pocketzoo.core import files
    from pocketzoo.zoo.bundles import bundle_lock

    def try_lock(handle: int) -> bool:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError("no locks on folders here")
        return files.try_lock(handle)

    monkeypatch.setattr(bundle_lock, "try_lock", try_lock)
    with changing(bundle.path), pytest.raises(BusyError), changing(bundle.path, patience=0.0):
        raise AssertionError("never reached")
    with changing(bundle.path):
        pass
