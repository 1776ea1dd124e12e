"""Read, verify and write bundles: folders with a manifest, safetensors, graphs and engines. Standard library."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import BundleError, PocketzooError, RecipeError, StorageError, UnsafeFileError, message_of
from pocketzoo.core.files import TEMPORARY, disk_errors, put_folder, reading_errors, replacing_folder, sha256
from pocketzoo.core.names import RULE, is_name
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.reading.documents import read_json
from pocketzoo.core.reading.utf8 import encoded
from pocketzoo.core.renamed import warn_renamed
from pocketzoo.core.typed import to_plain
from pocketzoo.core.version import __version__
from pocketzoo.zoo.bundles.bundle_lock import changing, check_unsigned, check_writable
from pocketzoo.zoo.bundles.manifest import FORMAT, MANIFEST, MODEL, SIGNATURE, FileEntry, Manifest, read_manifest
from pocketzoo.zoo.bundles.model_card import model_card
from pocketzoo.zoo.bundles.work_folder import check_place, collect_leftovers, note_delivery
from pocketzoo.zoo.graphs.files.weight_files import copy_graph, weight_files, weights_in
from pocketzoo.zoo.graphs.layer_cost import FLOATS
from pocketzoo.zoo.graphs.safety import check_graph


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was opened and whose files were verified."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Path of a file the manifest lists.

        Raises:
            BundleError: it lists no such file.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.path} has no {name}", f"it has: {', '.join(self.manifest.files)}")
        return self.path / name

    def source_files(self) -> dict[str, Path]:
        """The files that the backbone is built from, by the names they have in its repository."""
        names = [name for name in self.manifest.files if name.startswith(SOURCE_PREFIX)]
        return {name.removeprefix(SOURCE_PREFIX).replace("+", "/"): self.path / name for name in names}

    def travelled(self) -> dict[str, Path]:
        """The former name of ``source_files``."""
        warn_renamed("travelled", "source_files")
        return self.source_files()

    def graphs(self, target: str | None = None) -> dict[str, Path]:
        """The graphs of the model by name: each the one encoded for ``target``, else the float one.

        Without ``target`` it is what ``graphs`` was in the last release, ``encodings``.
        """
        if target is None:
            warn_renamed("graphs()", "encodings()")
            return self.encodings()
        paths: dict[str, Path] = {}
        for encoded_for in ("", target):
            for name, entry in self.manifest.files.items():
                if name.endswith(".onnx") and entry.target == encoded_for:
                    paths[entry.graph or MODEL] = self.path / name
        return paths

    def encodings(self, graph: str = MODEL) -> dict[str, Path]:
        """The encodings of one graph by target; "" is the float one, which runs anywhere."""
        files = self.manifest.files.items()
        return {
            e.target: self.path / name for name, e in files if name.endswith(".onnx") and (e.graph or MODEL) == graph
        }

    @property
    def float_precision(self) -> str:
        """numpy's name of the floats that its graphs compute in where nothing encoded them: "float32"."""
        entries = (e.precision for n, e in self.manifest.files.items() if n.endswith(".onnx") and not e.target)
        return next((precision for precision in entries if precision in FLOATS), FLOATS[0])

    def targets(self) -> tuple[str, ...]:
        """The targets that it has graphs for: "" first, where it has float ones."""
        return tuple(sorted({e.target for name, e in self.manifest.files.items() if name.endswith(".onnx")}))

    def built(self) -> dict[str, FileEntry]:
        """What back ends built of the graphs, by the name of the file that is loaded."""
        files = self.manifest.files.items()
        return {name: e for name, e in files if (e.backend or name.endswith(ENGINE)) and not e.of}

    def graph(self, target: str = "cpu", name: str = MODEL) -> Path:
        """The graph to run on a target: the one encoded for it, else the float graph."""
        return self.graphs(target).get(name) or self.file(graph_name(graph=name))


def graph_name(target: str = "", precision: str = "int8", graph: str = MODEL) -> str:
    """File name of a graph: the float one, or the one a graph step encoded for a target.

    Raises:
        BundleError: graph, precision or target are no names; see ``core.names``.
    """
    return _joined(graph, precision, target, "onnx") if target else _joined(graph, "onnx")


def _joined(*parts: str) -> str:
    """Names with dots between: what is registered was checked there, what a manifest says was not."""
    for part in parts:
        if not is_name(part):
            raise BundleError(f"{part!r} cannot be part of a file's name", RULE)
    return ".".join(parts)


CARD = "README.md"
SOURCE_PREFIX = "backbone."
ENGINE = ".engine"  # the one form that earlier versions built, without a word of who did


def source_file_name(path: str) -> str:
    """The name in a bundle, which has no folders, of a source file at ``path`` that the backbone is built from."""
    return SOURCE_PREFIX + path.replace("/", "+")


def read_bundle(path: str | Path) -> Bundle:
    """Open a bundle and verify size and sha256 of every file it lists; what it does not list is never read.

    Raises:
        BundleError: it is not a bundle, was made by a newer pocketzoo, or a file is missing or damaged.
        UnsafeFileError: a file is a hard link, or a graph names files or operators from elsewhere.
        StorageError: a file may not be read.
    """
    path = Path(path)
    collect_leftovers(path)
    while True:
        before = _identity(path)
        try:
            with reading_errors(path):
                return _read(path)
        except (PocketzooError, OSError):
            if _identity(path) == before:
                raise  # else another process put a newer one there while it was read: that is whole


def _identity(path: Path) -> tuple[int, ...]:
    try:
        at = os.stat(path)
    except OSError:
        return ()
    return at.st_dev, at.st_ino, at.st_ctime_ns


def _read(path: Path) -> Bundle:
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        if path.suffix == ".onnx" and not path.exists():
            raise BundleError(f"there is no file {path}", "check the path")
        what = f"{path} is not a bundle (it has no {MANIFEST})" if path.exists() else f"there is no bundle at {path}"
        raise BundleError(what, "make one with: pocketzoo fit ... -o BUNDLE")
    manifest = _manifest_at(path)
    inside = os.path.realpath(path)
    for name, entry in manifest.files.items():
        file = path / name
        if "\0" in name:
            raise BundleError(f"{manifest_path} is damaged: it lists a file {name!r}", "restore it from a copy")
        outside = os.path.realpath(file) != f"{inside}{os.sep}{name}"  # links and "..", in the name or on the way
        if Path(name).is_absolute() or outside:
            raise BundleError(f"{path} points outside itself: {name}", "do not use this bundle")
        if not os.path.isfile(file):  # Path.is_file would raise for a name that is too long
            raise BundleError(f"{path} is missing its file {name}", "restore it from a copy, or rebuild the bundle")
        if file.stat().st_size != entry.size or sha256(file) != entry.sha256:
            raise BundleError(f"{file} is damaged (sha256 differs)", "restore it from a copy, or rebuild the bundle")
        if file.stat().st_nlink > 1:  # whoever has the other name can change the file after it was checked
            raise UnsafeFileError(f"{file} is a hard link to a file elsewhere", f"copy the bundle: cp -r {path} COPY")
        if entry.of and entry.of not in manifest.files:
            raise BundleError(f"{path} has {name}, and not {entry.of}, which it is part of", "export the model again")
        if name.endswith(".onnx"):
            check_graph(file, files=manifest.files, digest=entry.sha256)
    return Bundle(path, manifest)


def _manifest_at(path: Path) -> Manifest:
    manifest_path = path / MANIFEST
    try:
        data = read_json(manifest_path)
        if type(data.get("format")) is int and data["format"] > FORMAT:
            raise BundleError(f"{path} has format {data['format']}, this version reads {FORMAT}", "upgrade pocketzoo")
        return read_manifest(data)
    except (ValueError, AttributeError, RecipeError) as error:
        raise BundleError(f"{manifest_path} is damaged: {message_of(error)}", "restore it from a copy") from error


@contextmanager
def writing(
    path: Path, *, force: bool = True, work: Path | None = None, progress: Progress = SILENT
) -> Iterator[Draft]:
    """Write a bundle: put files into ``draft.folder``, set ``draft.manifest``; it appears whole, or not at all.

    ``force`` replaces a bundle that is there. What a user asked to be written there is not to, unless told so.
    ``work`` is the work folder of the run that writes it, which ends by that.

    Raises:
        BundleError: ``path`` exists and is something else than a bundle, or is one that is not to be replaced.
        StorageError: the disk refused.
    """
    path = path.absolute()
    check_place(path, force=force)
    with replacing_folder(path, partial(put_bundle, force=force, work=work, progress=progress)) as folder:
        draft = Draft(folder)
        yield draft
        _seal(draft)
    draft.path = path


def put_bundle(folder: Path, path: Path, *, force: bool, work: Path | None = None, progress: Progress = SILENT) -> None:
    """Move a finished bundle to ``path`` in one step; one that was there, perhaps since the run began, to ``folder``.

    Raises:
        BundleError: it must not be written to ``path``; see ``check_place``. Both are as they were.
    """
    check_place(path, force=force)
    if work is not None:
        note_delivery(work, folder)
    with (
        changing(path, progress=progress) if (path / MANIFEST).is_file() else nullcontext()
    ):  # who changes it finishes first
        try:
            put_folder(folder, path, replace=force)
        except FileExistsError:  # since the line before
            check_place(path, force=force)
            raise


@contextmanager
def updating(
    bundle: Bundle, path: Path | None = None, *, force: bool = False, progress: Progress = SILENT
) -> Iterator[Draft]:
    """Change a bundle: the draft starts as a copy of it, and replaces it whole, or is written to ``path`` instead.

    The draft is of the bundle as it lies there now, which other processes may have added to since ``bundle`` was
    opened: change ``draft.manifest``, and nothing is lost. Nobody else changes the bundle while the body runs.

    Raises:
        BundleError: it has become another model; for ``path``: a file of it is not what it was when it was opened.
        BusyError: another process does not end changing it.
        SignatureError: it is signed, which the change would end, and ``force`` does not say to.
        StorageError: it is read-only, or the disk refused.
    """
    if path is not None:
        with writing(path, progress=progress) as draft:
            _copy(bundle, draft)
            yield draft
        return
    place = Path(os.path.realpath(bundle.path))
    with changing(place, progress=progress):
        current = _current(bundle)
        check_unsigned(place, force=force)
        check_writable(place)
        with replacing_folder(place) as folder:
            draft = Draft(folder)
            _copy(current, draft)
            yield draft
            _seal(draft)
            _keep_unlisted(place, folder, current.manifest)
        draft.path = place


def _copy(bundle: Bundle, draft: Draft) -> None:
    for name, entry in bundle.manifest.files.items():
        try:
            shutil.copy2(bundle.path / name, draft.folder / name)
        except FileNotFoundError as error:
            raise _changed(bundle) from error
        if sha256(draft.folder / name) != entry.sha256:  # replaced by others, or a damaged disk: not to be sealed anew
            raise _changed(bundle)
        draft.kinds[name] = entry
    draft.manifest = bundle.manifest


def _keep_unlisted(path: Path, folder: Path, manifest: Manifest) -> None:
    """Copy what lies in a bundle's folder and is not of it, such as notes or a .git, to the folder that replaces it."""
    own = (*manifest.files, MANIFEST, SIGNATURE)
    for each in sorted(path.iterdir()):
        place = folder / each.name
        if each.name in own or each.name.endswith(TEMPORARY) or os.path.lexists(place):
            continue
        try:
            if each.is_dir() and not each.is_symlink():
                shutil.copytree(each, place, symlinks=True)
            elif each.is_symlink() or each.is_file():  # a pipe would be waited for
                shutil.copy2(each, place, follow_symlinks=False)
        except shutil.Error as error:  # of each file in the folder
            raise StorageError(f"cannot copy {each}: {error.args[0][0][2]}", "move it out of the bundle") from error


def _current(bundle: Bundle) -> Bundle:
    """The bundle as it is now."""
    if _manifest_at(bundle.path) == bundle.manifest:
        return bundle
    current = read_bundle(bundle.path)
    if _model_of(current, bundle) != _model_of(bundle, current):
        raise _changed(bundle)
    return current


def _changed(bundle: Bundle) -> BundleError:
    return BundleError(f"{bundle.path} was changed by another process meanwhile", "give the command again")


def _model_of(bundle: Bundle, other: Bundle) -> tuple[Manifest, dict[str, str]]:
    """What makes two bundles one model: all but what is added to it, and the float files that both have."""
    added: dict[str, Any] = {
        "measurements": (),
        "layers": {},
        "driver": "",
        "generation": None,
        "files": {},
        "created": "",
        "pocketzoo": "",
    }
    both = bundle.manifest.files.keys() & other.manifest.files.keys()
    entries = {name: bundle.manifest.files[name] for name in both if name != CARD}
    weights = {name: e.sha256 for name, e in entries.items() if not (e.target or e.backend)}
    return replace(bundle.manifest, **added), weights


@dataclass
class Draft:
    """A bundle on its way to the disk."""

    folder: Path
    manifest: Manifest | None = None
    kinds: dict[str, FileEntry] = field(default_factory=dict)  # target and precision of graphs and engines
    path: Path | None = None  # where it is, once written

    def mark(
        self, name: str, *, target: str = "", precision: str = "", graph: str = "", backend: str = "", of: str = ""
    ) -> Path:
        """Say what a file runs on, of which graph it is, and who built it.

        Returns the path to write it to, where an earlier one of the same may be.

        Raises:
            BundleError: another file of the bundle is called so, as the weights would be by a step called "model".
        """
        graph = "" if graph == MODEL else graph
        entry = FileEntry(sha256="", size=0, target=target, precision=precision, graph=graph, backend=backend, of=of)
        there = replace(self.kinds.get(name) or entry, sha256="", size=0)
        known = replace(there, backend=there.backend or backend)  # which earlier versions did not note
        if (self.folder / name).exists() and (name not in self.kinds or known != entry):
            raise BundleError(f"{name} would be two files of one bundle", "rename what the second is called after")
        self.kinds[name] = entry
        return self.folder / name

    def put(
        self, files: Sequence[Path], name: str, *, target: str, precision: str, graph: str = "", backend: str = ""
    ) -> None:
        """Take in what was exported as ``name``: the first of the files, and those that belong to it.

        They have one stem, which becomes that of ``name``. Files of an earlier export of that name go.
        """
        for old in [each for each, entry in self.kinds.items() if entry.of == name]:
            del self.kinds[old]
            (self.folder / old).unlink()
        main, *others = files
        copy_graph(main, self.mark(name, target=target, precision=precision, graph=graph, backend=backend))
        weights = weight_files(main)
        for each in (each for each in others if each not in weights):
            own = Path(name).stem + each.name.removeprefix(main.stem)
            more = self.mark(own, target=target, precision=precision, graph=graph, backend=backend, of=name)
            shutil.copyfile(each, more)


def _seal(draft: Draft) -> None:
    if draft.manifest is None:
        raise ValueError("a draft needs a manifest")
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    seal(draft.folder, replace(draft.manifest, created=created, pocketzoo=__version__), draft.kinds)


def seal(folder: Path, manifest: Manifest, kinds: Mapping[str, FileEntry]) -> None:
    """Write card and manifest, the manifest last: it holds the digest of everything else.

    ``kinds`` are what is known of the files: target and precision.
    """
    with disk_errors(folder):
        (folder / CARD).write_bytes(encoded(model_card(manifest)))
        files = {}
        parts = {name: FileEntry(sha256="", size=0, of=graph) for name, graph in weights_in(folder).items()}
        kinds = {**parts, **kinds}
        for file in sorted(p for p in folder.iterdir() if p.name != MANIFEST):
            kind = kinds.get(file.name, FileEntry(sha256="", size=0))
            files[file.name] = replace(kind, sha256=sha256(file), size=file.stat().st_size)
        text = json.dumps(to_plain(replace(manifest, files=files)), indent=1, ensure_ascii=False)
        (folder / MANIFEST).write_bytes(encoded(text + "\n"))
