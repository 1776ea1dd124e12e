"""What lies in a folder of samples: those that are read, and by name what is left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pocketzoo.core.errors import DataError, message_of
from pocketzoo.zoo.data.batches import Skipped

# What file managers, network drives and archives leave: no classes, and no samples.
SYSTEM = frozenset(
    (
        *("__macosx", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler"),
        *(
            "lost+found",
            "thumbs.db",
            "ehthumbs.db",
            "desktop.ini",
            "__pycache__",
            "system volume information",
            "icon\r",
        ),
    )
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is of the system, or hidden: ``.git``, ``._photo.png``, ``__MACOSX``, ``Thumbs.db``."""
    return name.startswith((".", "~$")) or name.casefold() in SYSTEM


@dataclass
class FolderListing:
    """Lists folders whose samples have names with one of ``suffixes``, and remembers what it leaves out."""

    suffixes: Collection[str]
    skipped: Skipped | None = None  # takes links to nowhere; None: the first is an error
    hidden: list[Path] = field(default_factory=list)
    unused: list[Path] = field(
        default_factory=list
    )  # files (and folders that are called as such) that no processor reads, or that lie where none is read
    nested: list[Path] = field(default_factory=list)  # samples in folders where samples lie

    def folders(self, folder: Path) -> list[Path]:
        """Its folders, by name."""
        return [each for each in self._entries(folder) if each.is_dir()]

    def samples(self, folder: Path, *, below: bool = False) -> list[Path]:
        """Its samples, by name, and with ``below`` those in folders in it. Other files are remembered, and these."""
        found = []
        for path in self._entries(folder):
            if path.is_dir() and below:
                found += self.samples(path, below=True)
            elif path.is_dir():
                below_it = list(self._below(path))
                self.nested += below_it
                self.unused += [path] * (not below_it and path.suffix.lower() in self.suffixes)
            elif path.is_file() and path.suffix.lower() in self.suffixes:
                found.append(path)
            else:
                self.unused.append(path)
        return found

    def aside(self, folder: Path) -> None:
        """Remember the files that lie alongside folders of classes."""
        self.unused += [each for each in self._entries(folder) if not each.is_dir()]

    def sentences(self, path: Path) -> Iterator[str]:
        """What the user should hear."""
        hidden, unused, nested = (list(dict.fromkeys(each)) for each in (self.hidden, self.unused, self.nested))
        if hidden:
            yield f"{path}: left out {_counted(hidden, 'hidden or system entry', 'hidden or system entries')}"
        if unused:
            endings = Counter(each.suffix.lower() or "no suffix" for each in unused).most_common(4)
            said = ", ".join(f"{count} of {ending}" for ending, count in endings)
            yield f"{path}: did not read {_counted(unused, 'file', 'files')} ({said})"
        if nested:
            yield f"{path}: did not read {_counted(nested, 'sample', 'samples')}, in folders inside of class folders"

    def _entries(self, folder: Path) -> Iterator[Path]:
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            raise DataError(f"cannot read the folder {folder}: {message_of(error)}", "check its permissions") from error
        for path in paths:
            if is_hidden(path.name):
                self.hidden.append(path)
            elif path.is_symlink() and (what := _leads_nowhere(path)):
                if self.skipped is None:
                    raise DataError(f"{path} is a link to {what}: {os.readlink(path)}", "remove it, or use --skip-bad")
                self.skipped.names.add(str(path))
            else:
                yield path

    def _below(self, folder: Path) -> Iterator[Path]:
        for where, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if not is_hidden(name))
            for name in sorted(files):
                if not is_hidden(name) and Path(name).suffix.lower() in self.suffixes:
                    yield Path(where, name)


def _leads_nowhere(link: Path) -> str:
    """Why a link is not followed; "" where it is."""
    if not link.exists():
        return "nowhere"
    return "a folder that it lies in" if link.parent.resolve().is_relative_to(link.resolve()) else ""


def _counted(paths: list[Path], one: str, several: str) -> str:
    return f"{len(paths)} {one if len(paths) == 1 else several}, such as {paths[0]}"
