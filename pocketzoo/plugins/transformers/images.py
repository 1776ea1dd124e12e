"""How a repository's images become arrays: every setting of preprocessor_config.json is followed or refused by name.

What a file does not say is what the library's class of the name that it has, or that its family goes by, does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose
from typing import Any

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.plugins.transformers.repository_settings import check, read_table, refuse
from pocketzoo.plugins.transformers.setting_values import Fits, flag, number, one_of, several, whole
from pocketzoo.zoo.catalog.specs import InputSpec, Repository

FILE = "preprocessor_config.json"
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # as Pillow counts them
WARPED = 384  # from which side on ConvNeXt's processor cuts nothing off
Size = tuple[int, int]  # height, width


@dataclass(frozen=True, slots=True)
class ImageDefaults:
    """What a class of the library does where nothing is said."""

    size: Mapping[str, int]
    crop: int = 0  # side of the center that is cut out; 0: none is
    square: bool = True  # a size that is one number is both sides, not the shorter one
    resample: int = 2
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    crops_after: bool = False  # ConvNeXt: resizes to side / crop_pct, and cuts the side out


_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_BIT = ImageDefaults({"shortest_edge": 224}, crop=224, square=False, resample=3, mean=_CLIP_MEAN, std=_CLIP_STD)
_CONVNEXT = ImageDefaults({"shortest_edge": WARPED}, square=False, resample=3, crops_after=True)
PROCESSORS = {
    "ViT": ImageDefaults({"height": 224, "width": 224}),
    "DeiT": ImageDefaults({"height": 256, "width": 256}, crop=224, resample=3),
    "ConvNext": _CONVNEXT,
    "Bit": _BIT,
    "CLIP": _BIT,
}
OF_FAMILY = {
    "vit": "ViT", "deit": "DeiT", "dinov2": "Bit", "resnet": "ConvNext", "convnext": "ConvNext",
    "convnextv2": "ConvNext",
}  # fmt: skip


def positive(value: Any) -> bool:
    return whole(value) and value > 0


def sides(*names: str) -> Fits:
    """A number of pixels, or a table of these sides."""
    return lambda value: positive(value) or (
        isinstance(value, dict) and set(value) in ({"height", "width"}, *({name} for name in names))
        and all(map(positive, value.values()))
    )  # fmt: skip


def per_channel(value: Any) -> bool:
    return number(value) or (bool(value) and several(number)(value))


def deviations(value: Any) -> bool:
    return per_channel(value) and all(each > 0 for each in ([value] if number(value) else value))


CHANNELS = 1024  # of an image, at most: of satellites some have hundreds
FOLLOWED: dict[str, Fits] = {
    "do_resize": lambda value: value is True,  # without it, images would keep sizes of their own
    "do_pad": lambda value: value is False,
    "size": sides("shortest_edge"),
    "crop_size": sides(),
    "resample": lambda value: whole(value) and value in RESAMPLING,
    "crop_pct": lambda value: number(value) and 0 < value <= 1,
    "rescale_factor": lambda value: number(value) and value > 0,
    **dict.fromkeys(("do_center_crop", "do_rescale", "do_normalize", "default_to_square"), flag),
    "image_mean": per_channel,
    "image_std": deviations,
    "data_format": one_of("channels_first"),
    **dict.fromkeys(
        ("image_processor_type", "feature_extractor_type"),
        one_of(*(f"{name}{end}" for name in PROCESSORS for end in ("ImageProcessor", "ImageProcessorFast",
                                                                    "ImageProcessorPil", "FeatureExtractor"))),
    ),
}  # fmt: skip
HARMLESS = {
    **dict.fromkeys(("do_convert_rgb", "input_data_format"), "images are read in the model's channels, whatever says"),
    **dict.fromkeys(("return_tensors", "device", "disable_grouping"), "how and where the library hands arrays out"),
    **dict.fromkeys(("processor_class", "_processor_class", "_valid_processor_keys", "name_or_path",
                     "transformers_version", "image_seq_length"), "read by no class of PROCESSORS"),
}  # fmt: skip


def image_spec(repository: Repository, config: Mapping[str, Any]) -> InputSpec:
    """How images are read.

    Raises:
        UnsupportedModelError: a setting is not followed here; it is named.
    """
    table = read_table(repository, FILE)
    check(FILE, table, FOLLOWED, HARMLESS)
    own = table.get("image_processor_type") or table.get("feature_extractor_type")
    kind = next((name for name in PROCESSORS if own and own.startswith(name)), OF_FAMILY[config["model_type"]])
    processor = PROCESSORS[kind]
    resize, edges, stretch = _geometry(table, processor, bool(own))
    if not 0 < (channels := int(config.get("num_channels") or 3)) <= CHANNELS:
        raise refuse("config.json", "num_channels", channels, f"where images have up to {CHANNELS} channels")
    top = 255.0 * float(table.get("rescale_factor", 1 / 255)) if table.get("do_rescale", True) else 255.0
    mean, std = [0.0] * channels, [1.0] * channels
    if table.get("do_normalize", True):
        mean = _of_channels(table, "image_mean", processor.mean, channels)
        std = _of_channels(table, "image_std", processor.std, channels)
    return InputSpec(
        shape=("batch", channels, *edges),
        mean=tuple(mean),
        std=tuple(std),
        resize=min(edges) if stretch else resize,
        value_range=(0.0, 1.0 if isclose(top, 1.0) else top),
        interpolation=RESAMPLING[table.get("resample", processor.resample)],  # type: ignore[arg-type]
        stretch=bool(stretch),
        stretched=() if stretch == edges else stretch,
        longer="round" if stretch else "floor",
    )


def _geometry(table: Mapping[str, Any], processor: ImageDefaults, typed: bool) -> tuple[int, Size, Size | tuple[()]]:
    """The shorter side after resizing, what is cut out, and to what size images are stretched instead; () if not.

    A file that does not say its class is taken at its word: what it does not mention is not cut out.
    """
    size = table.get("size", processor.size)
    if whole(size):
        square = table.get("default_to_square", processor.square)
        size = {"height": size, "width": size} if square else {"shortest_edge": size}
    usual = processor.crop > 0 if typed or "size" not in table else "crop_size" in table
    if typed and table.get("do_center_crop") and not table.get("crop_size") and not processor.crop:
        raise refuse(FILE, "do_center_crop", True, "and no 'crop_size'")
    cut = _pair(table.get("crop_size") or processor.crop or size) if table.get("do_center_crop", usual) else None
    if processor.crops_after:
        return _cropped_after(table, size, cut, typed)
    if "crop_pct" in table and typed:
        raise refuse(FILE, "crop_pct", table["crop_pct"])
    whole_size = _pair(size)
    if cut is not None and (cut[0] > whole_size[0] or cut[1] > whole_size[1]):
        raise refuse(FILE, "crop_size", table.get("crop_size", processor.crop), f"and 'size' to {size}, which is less")
    if "shortest_edge" not in size:
        return min(whole_size), cut or whole_size, whole_size
    if cut is None:
        raise refuse(FILE, "size", size, "and cuts nothing out, so that images have no one size")
    return size["shortest_edge"], cut, ()


def _cropped_after(
    table: Mapping[str, Any], size: Mapping[str, int], cut: Size | None, typed: bool
) -> tuple[int, Size, Size | tuple[()]]:
    """ConvNeXt's: resized to more than its side, by the fraction that is cut off after; large ones are stretched."""
    if "shortest_edge" not in size and (typed or len(set(size.values())) > 1):
        raise refuse(FILE, "size", dict(size), "where its processor reads 'shortest_edge'")
    side = _pair(size)[0]
    both = (side, side)
    if cut not in (None, both) and typed:
        raise refuse(FILE, "crop_size", table.get("crop_size"), f"and 'size' to {size}")
    if cut not in (None, both):
        return side, cut or both, ()
    if side >= WARPED:
        return side, both, both
    return int(side / float(table.get("crop_pct", 224 / 256))), both, ()


def _pair(size: Any) -> Size:
    if isinstance(size, int):
        return size, size
    if "shortest_edge" in size:
        return size["shortest_edge"], size["shortest_edge"]
    return size["height"], size["width"]


def _of_channels(table: Mapping[str, Any], name: str, usual: tuple[float, ...], channels: int) -> list[float]:
    value = table.get(name, usual)
    each = [float(value)] * channels if number(value) else [float(v) for v in value]
    if len(each) != channels:
        raise UnsupportedModelError(
            f"its {FILE} has {len(each)} values for {name!r}, and images have {channels} channels", "choose another"
        )
    return each
