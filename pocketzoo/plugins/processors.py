"""The processors that ship: images, texts, tables, arrays that are ready, and several of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketzoo.core.errors import RecipeError, UnsupportedModelError
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.processor import ForeignInputs, ProcessorSpec, TrainingSamples
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec, MappingSpec, TableSpec
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec

if TYPE_CHECKING:
    from pocketzoo.zoo.catalog.processor import Processor


@hookimpl
def pocketzoo_processors() -> list[ProcessorSpec]:
    return [
        ProcessorSpec(
            name="image",
            summary="images, resized, cut at the center and normalized",
            modality="image",
            reads="image files (PNG, JPEG, WebP), their bytes, Pillow images or uint8 pixels",
            config=InputSpec,
            open=_image,
            argument="PHOTO.jpg",
            suffixes=(".png", ".jpg", ".jpeg", ".webp"),
            earlier=_earlier_image,
            resized=_resized,
            graph=_image_graph,
            feeds=_feeds_image,
        ),
        ProcessorSpec(
            name="text",
            summary="texts as token ids of the model's own tokenizer, with their attention mask where it is an input",
            modality="text",
            reads="texts, text files in UTF-8, or token ids",
            config=TextSpec,
            open=_text,
            argument="TEXT",
            files=_tokenizer,
            earlier=_earlier_text,
            feeds=_feeds_text,
        ),
        ProcessorSpec(
            name="table",
            summary="rows of numbers, by the names of their columns or in order",
            modality="tabular",
            reads="rows of numbers, or mappings of column to number",
            config=TableSpec,
            open=_table,
            argument="ROWS.csv",
            earlier=_earlier_table,
            fit=_fit_table,
            feeds=_feeds_table,
            graph=_table_graph,
        ),
        ProcessorSpec(
            name="arrays",
            summary="named arrays that are ready for the model",
            modality="arrays",
            reads="arrays by the names of the model's inputs",
            config=ArraysSpec,
            open=_arrays,
            argument="ARRAYS.npz",
            earlier=_earlier_arrays,
        ),
        ProcessorSpec(
            name="mapping",
            summary="samples of several things, each by a processor of its own",
            modality="multimodal",
            reads="mappings of field to what its processor reads",
            config=MappingSpec,
            open=_mapping,
            argument="SAMPLES.json",
            parts="fields",
        ),
    ]


def _image(config: InputSpec, files: Mapping[str, Path]) -> Processor:
    from pocketzoo.zoo.data.processors.image_processor import ImageProcessor

    return ImageProcessor(config)


def _resized(config: InputSpec, size: tuple[int, ...]) -> InputSpec | None:
    from pocketzoo.zoo.data.processors.image_processor import resized

    return resized(config, size)


def _image_graph(config: InputSpec, path: Path) -> None:
    from pocketzoo.deploy.triton.image_preprocessing_graph import FILTERS, save_preparation

    if len(config.size) != 3 or not config.mean:
        raise UnsupportedModelError("how it is made of images is not known", "import it with --mean and --std")
    if config.interpolation not in FILTERS:
        raise UnsupportedModelError(
            f"{config.interpolation} resizing has no operator", f"use a model that resizes by {' or '.join(FILTERS)}"
        )
    save_preparation(config, path)


def _text(config: TextSpec, files: Mapping[str, Path]) -> Processor:
    from pocketzoo.zoo.data.processors.text_processor import TextProcessor

    return TextProcessor(config, files)


def _tokenizer(config: TextSpec) -> tuple[str, ...]:
    return (config.tokenizer,)


def _table(config: TableSpec, files: Mapping[str, Path]) -> Processor:
    from pocketzoo.zoo.data.processors.table_processor import TableProcessor

    return TableProcessor(config)


def _fit_table(config: TableSpec, training: TrainingSamples) -> TableSpec:
    from pocketzoo.zoo.data.processors.table_columns import fitted

    return fitted(config, training)


def _table_graph(config: TableSpec, path: Path) -> None:
    from pocketzoo.deploy.triton.table_graph import save_table_graph

    if not (config.missing or config.mean or config.std):
        raise UnsupportedModelError("rows are read as they are", "send them to the model itself")
    save_table_graph(config, path)


def _arrays(config: ArraysSpec, files: Mapping[str, Path]) -> Processor:
    from pocketzoo.zoo.data.processors.arrays_processor import ArraysProcessor

    return ArraysProcessor(config)


def _mapping(config: MappingSpec, files: Mapping[str, Path], parts: Mapping[str, Processor]) -> Processor:
    from pocketzoo.zoo.data.processors.mapping_processor import MappingProcessor

    return MappingProcessor(parts)


def _feeds_image(asked: ForeignInputs) -> InputSpec | None:
    from pocketzoo.zoo.data.processors.foreign_inputs import image_of

    return image_of(asked)


def _feeds_text(asked: ForeignInputs) -> TextSpec | None:
    from pocketzoo.zoo.data.processors.foreign_inputs import text_of

    return text_of(asked)


def _feeds_table(asked: ForeignInputs) -> TableSpec | None:
    from pocketzoo.zoo.data.processors.foreign_inputs import table_of

    return table_of(asked)


# Earlier bundles, and plugins written for them, have all but texts as an InputSpec, told apart by its shape.


def _earlier_input(data: Mapping[str, Any]) -> InputSpec | None:
    from pocketzoo.core.typed import from_plain

    try:
        return from_plain(InputSpec, data)
    except RecipeError:
        return None


def _earlier_image(data: Mapping[str, Any]) -> InputSpec | None:
    spec = _earlier_input(data)
    return spec if spec is not None and _is_image(spec) else None


def _is_image(spec: InputSpec) -> bool:
    return len(spec.shape) == 4 and spec.layout == "NCHW"


def _earlier_table(data: Mapping[str, Any]) -> TableSpec | None:
    spec = _earlier_input(data)
    if spec is None or len(spec.shape) != 2 or spec.dtype != "float32" or not isinstance(spec.shape[1], int):
        return None
    return TableSpec(width=spec.shape[1], name=spec.name)


def _earlier_arrays(data: Mapping[str, Any]) -> ArraysSpec | None:
    spec = _earlier_input(data)
    if spec is None or _is_image(spec) or _earlier_table(data) is not None:
        return None
    return ArraysSpec(inputs=(TensorSpec(name=spec.name, shape=spec.shape, dtype=spec.dtype),))


def _earlier_text(data: Mapping[str, Any]) -> TextSpec | None:
    from pocketzoo.core.typed import from_plain

    try:
        return from_plain(TextSpec, data)
    except RecipeError:
        return None
