"""``compress --data none``: what is refused without data, by name, and the samples that are made for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketzoo.compress.samples.synthetic import RESEMBLING, synthetic_data
from pocketzoo.core.errors import DataError
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.compressor import Compressor
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.data.load_data import NONE
from pocketzoo.zoo.models.resolver import Resolver, is_graph_only

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

GIVE = "leave it out, or give --data"


def is_none(data: Any) -> bool:
    """Whether ``--data`` says that there is none.

    Raises:
        DataError: it says what its columns or sources are as well, or there is a file or folder of that name.
    """
    place, mark, _ = str(data).partition("?") if isinstance(data, str) else ("", "", "")
    if place != NONE:
        return False
    if Path(NONE).exists():
        raise DataError(
            f"{NONE} means that there is no data, and is also a path here", f"for the path write ./{NONE}, or rename it"
        )
    if mark:
        raise DataError(
            "there is no data that has columns or sources", "leave out --group-by, --text-column and --label-column"
        )
    return True


def check_without_data(steps: Sequence[tuple[Compressor, Any]], max_drop: float | None) -> None:
    """Raises:
    DataError: a step, or what it is held to, cannot do without data.
    """
    if max_drop is not None or any(getattr(config, "max_drop", None) is not None for _, config in steps):
        raise DataError("max_drop is of what the answers to real data are worth, and there is none", GIVE)
    for compressor, _ in steps:
        if compressor.synthetic == "none":
            raise DataError(f"{compressor.name} learns from data, and there is none", GIVE)


def without_data(
    source: Bundle,
    processor: Processor,
    steps: Sequence[tuple[Compressor, Any]],
    samples: int,
    resolver: Resolver,
    *,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Dataset:
    """Samples for the steps, made of what the model tells.

    Raises:
        DataError: a step fits weights to samples, and those that this model tells of do not resemble its own.
    """

    def graph() -> ModelProto:
        from pocketzoo.zoo.graphs.files.load_graph import read_graph  # which needs onnx

        return read_graph(source.graph(""))

    def module() -> nn.Module | None:
        if is_graph_only(source):
            return None
        from pocketzoo.zoo.models.build import module_of  # which needs torch

        return module_of(source, resolver.structure(source))

    made = synthetic_data(processor, samples, graph, module, seed, progress)
    for compressor, _ in steps:
        if compressor.synthetic == "resembling" and made.synthetic not in RESEMBLING:
            raise DataError(
                f"{compressor.name} fits weights to samples like those that a model was trained on, and"
                f" {source.manifest.name} tells of none: without data there are {made.synthetic}",
                GIVE,
            )
    progress.say(f"there is no data: {len(made.split('train'))} samples are made of {made.synthetic}")
    return made
