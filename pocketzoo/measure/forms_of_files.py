"""The forms of the outputs of files, as far as this machine can read them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from pocketzoo.zoo.tasks.output_forms import OutputForms


def forms_of_files(paths: Iterable[Path]) -> OutputForms:
    """Of the outputs of graphs; none of what a back end built of one, and none on a device that has no onnx."""
    graphs = [path for path in paths if path.suffix == ".onnx"]
    if not graphs or find_spec("onnx") is None:
        return OutputForms()
    from pocketzoo.zoo.tasks.output_parts import forms_of_graph

    found = [forms_of_graph(path) for path in graphs]
    return OutputForms(
        {name: of for each in found for name, of in each.parts.items()},
        frozenset().union(*(each.rounded for each in found)),
        {name: of for each in found for name, of in each.selections.items()},
    )
