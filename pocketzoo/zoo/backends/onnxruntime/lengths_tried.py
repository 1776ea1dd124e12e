"""A graph that runs with none of the lengths that were tried of its free axes: what failed where, and what to say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pocketzoo.core.errors import BundleError
from pocketzoo.zoo.backends.onnxruntime.batch_axes import IMAGE_AXES, Filling, Guess
from pocketzoo.zoo.catalog.signature import TensorSpec

_NODE = re.compile(r"while running (?P<op>\S+) node\. Name:'(?P<name>[^']*)'.*?Status Message: (?P<why>.*)", re.S)
_CONDITION = re.compile(r"^.*\bwas false\. ", re.S)  # of the source of onnxruntime, before its sentence
SHOWN = 4  # lengths that are listed
MOST = 240  # characters of what onnxruntime says


class NoLengthError(Exception):
    """Why the first of all tries failed, with what was tried."""

    def __init__(self, inputs: Sequence[TensorSpec], guess: Guess, tried: Sequence[Filling]) -> None:
        super().__init__(f"none of {len(tried)} tries")
        self.inputs, self.guess, self.tried = inputs, guess, tried

    def __str__(self) -> str:
        return str(self.__cause__)


def does_not_run(path: Path, error: Exception) -> BundleError:
    """What to tell of a graph that onnxruntime does not run."""
    found = _NODE.search(str(error))
    free = _free(error) if isinstance(error, NoLengthError) else {}
    if not isinstance(error, NoLengthError) or not free or found is None or "bounds" in found["why"]:
        told = error.tried[0].told if isinstance(error, NoLengthError) else {}
        untold = [name for name in free if name not in told]
        ask = f"say how long its axes are, such as --axis {untold[-1]}=64" if untold else "check it with onnx.checker"
        return BundleError(f"onnxruntime does not run {path}: {error}", ask)
    first = error.tried[0]
    lengths = {name: first.told.get(name, usual[0]) for name, usual in free.items()}
    shown = " and ".join(f"{name} = {length}" for name, length in lengths.items())
    called = f" {found['name']!r}" if found["name"] else ""
    why = _CONDITION.sub("", found["why"]).strip()
    fails = f"{shown}: its node {found['op']}{called} fails: {why[:MOST]}"
    open_ = [name for name in free if name not in first.told]
    images = any(
        len(tensor.shape) == IMAGE_AXES and name in tensor.free.values() for tensor in error.inputs for name in free
    )
    option = "--size HEIGHTxWIDTH" if images else " ".join(f"--axis {name}=N" for name in (open_ or free))
    if not open_:
        return BundleError(f"{path} does not run with {fails}", f"give a length that it takes, {option}, or data of it")
    tried = list(dict.fromkeys(str(length) for name in open_ for length in free[name]))
    if len(tried) > SHOWN:
        tried[2:-1] = ["..."]
    which = " and ".join(map(repr, open_))
    return BundleError(
        f"{path} runs with no length of {which} that was tried ({', '.join(tried)}); with {fails}",
        f"say which it takes with {option}, or give data that has it: --data D",
    )


def _free(error: NoLengthError) -> dict[str, list[int]]:
    """The axes of any length that count no samples, by name -> the lengths that were tried."""
    found: dict[str, list[int]] = {}
    for tensor in error.inputs:
        for axis, name in tensor.free.items():
            if axis != error.guess.axes[tensor.name]:
                usual = (each.image if len(tensor.shape) == IMAGE_AXES else each.length for each in error.tried)
                found[name] = list(dict.fromkeys(usual))
    return found
