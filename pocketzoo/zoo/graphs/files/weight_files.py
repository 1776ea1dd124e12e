"""The file alongside a graph that holds its weights: found, counted, copied and removed together. No onnx needed.

A graph of more than a message of protobuf takes is two files, ``NAME.onnx`` and ``NAME.onnx.data``, and the first has
the name of the second in it. What copies, hashes or removes a graph does so with both.
"""

from __future__ import annotations

import mmap
import shutil
from pathlib import Path

from pocketzoo.core.errors import StorageError
from pocketzoo.core.files import replacing_file
from pocketzoo.zoo.graphs.safety import references

SUFFIX = ".data"
WRITTEN = b"location"  # how a graph has that a tensor lies elsewhere


def weights_place(graph: Path) -> Path:
    """Where the weights of a graph are written that needs a file for them."""
    return graph.with_name(graph.name + SUFFIX)


def weight_files(graph: Path) -> list[Path]:
    """The files that hold weights of a graph, sorted; none where it holds them itself, is no ``.onnx`` or not there.

    Raises:
        UnsafeFileError: it is not an ONNX file.
    """
    if graph.suffix != ".onnx" or not graph.is_file() or not graph.stat().st_size:
        return []
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(WRITTEN) < 0:  # as of nearly all; to read a graph takes longer than to search it
            return []
    return [graph.parent / name for name in sorted(references(graph).files)]


def weights_in(folder: Path) -> dict[str, str]:
    """The names of the files in a folder that hold weights of a graph there, and of that graph."""
    return {file.name: graph.name for graph in sorted(folder.glob("*.onnx")) for file in weight_files(graph)}


def graph_bytes(graph: Path) -> int:
    """Of a graph with its weights."""
    return sum(path.stat().st_size for path in (graph, *weight_files(graph)))


def remove_graph(graph: Path, *, missing_ok: bool = False) -> None:
    """Remove a graph with its weights."""
    for path in weight_files(graph):
        path.unlink(missing_ok=True)
    graph.unlink(missing_ok=missing_ok)


def copy_graph(graph: Path, place: Path) -> None:
    """Copy a graph, or what a back end built, to a file of any name; weights go alongside it under its name.

    Raises:
        StorageError: another file has the name that the weights would get.
    """
    weights = weight_files(graph)
    if not weights:
        with replacing_file(place) as temporary:
            shutil.copyfile(graph, temporary)
        return
    from pocketzoo.zoo.graphs.files.external_tensors import with_weights_in  # it needs onnx

    names = weight_names(place, len(weights))
    check_weights_place(place, names)
    for path, name in zip(weights, names, strict=True):
        with replacing_file(place.with_name(name)) as temporary:
            shutil.copyfile(path, temporary)
    renamed = {path.relative_to(graph.parent).as_posix(): name for path, name in zip(weights, names, strict=True)}
    with replacing_file(place) as temporary:
        temporary.write_bytes(with_weights_in(graph, renamed))


def weight_names(place: Path, count: int) -> list[str]:
    """What the files of the weights of a graph at ``place`` are called."""
    return [f"{place.name}.{number}{SUFFIX}" if number else place.name + SUFFIX for number in range(count)]


def check_weights_place(place: Path, names: list[str]) -> None:
    """Before weights are written alongside a graph at ``place``.

    Raises:
        StorageError: a file of such a name is there, and holds no weights of what is at ``place`` now.
    """
    own = weight_files(place)
    for name in names:
        if (there := place.with_name(name)).exists() and there not in own:
            raise StorageError(f"the weights of {place.name} would replace {there}", "choose another place with -o")
