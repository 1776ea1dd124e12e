"""Which inputs of a foreign graph the processors that ship make, and with which config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pocketzoo.core.errors import RecipeError, UnsupportedModelError
from pocketzoo.core.reading.documents import read_json
from pocketzoo.zoo.catalog.processor import ForeignInputs
from pocketzoo.zoo.catalog.processor_configs import TableSpec
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.data.processors.text_encoder import TextEncoder

LONGEST = 512  # tokens, where neither graph nor tokenizer says


def image_of(asked: ForeignInputs) -> InputSpec | None:
    """One input (B, C, H, W) of floats, of 1 or 3 channels. Without mean and std only arrays that are ready are read.

    Raises:
        UnsupportedModelError: it may have any size, and none is given.
        RecipeError: mean and std are of another number of channels.
    """
    (tensor, *others) = asked.inputs
    if others or tensor.dtype != "float32" or tensor.batch != 0 or len(tensor.shape) != 4:
        return None
    channels = tensor.shape[1]
    if not isinstance(channels, int) or channels not in (1, 3):
        return None
    sides = asked.sides or (asked.size or 0,) * 2
    height, width = (dim if isinstance(dim, int) else side for dim, side in zip(tensor.shape[2:], sides, strict=True))
    if not (height and width):
        more = "" if asked.mean else " and, to read image files, how they are scaled with --mean and --std"
        raise UnsupportedModelError(
            f"{asked.source} reads images of any size",
            f"say which one with --size HEIGHTxWIDTH{more}; if they are none: --processor arrays",
        )
    return InputSpec(
        shape=("batch", channels, height, width),
        mean=_per_channel(asked.mean, channels, asked.source),
        std=_per_channel(asked.std, channels, asked.source),
        value_range=asked.value_range,
        resize=min(height, width),
        name=tensor.name,
    )


def table_of(asked: ForeignInputs) -> TableSpec | None:
    """One input (B, columns) of floats."""
    (tensor, *others) = asked.inputs
    if others or tensor.dtype != "float32" or tensor.batch != 0 or len(tensor.shape) != 2:
        return None
    width = tensor.shape[1]
    return TableSpec(width=width, name=tensor.name) if isinstance(width, int) else None


def text_of(asked: ForeignInputs) -> TextSpec | None:
    """Token ids (B, T), with their mask and types where these are inputs too, by their names.

    Raises:
        UnsupportedModelError: there is a tokenizer, and the graph takes one length alone.
    """
    if not all(t.dtype == "int64" and len(t.shape) == 2 and t.batch == 0 for t in asked.inputs):
        return None
    if len({tensor.shape for tensor in asked.inputs}) > 1:
        return None
    mask = types = ""
    (ids, *others) = sorted(asked.inputs, key=lambda tensor: "mask" in tensor.name or "type" in tensor.name)
    for tensor in others:
        if "mask" in tensor.name and not mask:
            mask = tensor.name
        elif "type" in tensor.name and not types:
            types = tensor.name
        else:
            return None
    length, tokenizer = ids.shape[1], asked.tokenizer
    if isinstance(length, int):
        if tokenizer is None:
            return None  # a table of whole numbers
        raise UnsupportedModelError(
            f"{asked.source} has a fixed length of {length} tokens", "export it with a dynamic sequence axis"
        )
    spec = TextSpec(vocabulary=0, pad=0, max_length=LONGEST, name=ids.name, mask=mask, types=types)
    if tokenizer is None:  # token ids from an .npz need none
        return spec
    reader = TextEncoder(spec, {spec.tokenizer: tokenizer}).tokenizer
    settings = read_json(tokenizer)
    longest = (settings.get("truncation") or {}).get("max_length", LONGEST)
    pads = [(settings.get("padding") or {}).get("pad_id"), *(reader.token_to_id(t) for t in ("[PAD]", "<pad>"))]
    pad = next((p for p in pads if p is not None), 0)
    return replace(spec, vocabulary=reader.get_vocab_size(), pad=pad, max_length=longest)


def _per_channel(values: Sequence[float], channels: int, source: str) -> tuple[float, ...]:
    if len(values) not in (0, 1, channels):
        raise RecipeError(
            f"{len(values)} values for the {channels} channels of {source}", "give one, or one per channel"
        )
    return tuple(values) * channels if len(values) == 1 else tuple(values)
