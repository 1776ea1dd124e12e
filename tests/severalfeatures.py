"""Backbones that give several features by name, and heads that read one, two or all of them: small, untrained."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import numpy as np

from pocketzoo.api import Dataset, InputSpec, MappingSpec, TableSpec, TextSpec, from_arrays
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import BackboneSpec, Cut, FeatureSpec, HeadSpec
from pocketzoo.zoo.catalog.task import DecoderSpec
from pocketzoo.zoo.tasks.decoders.configs import OutputConfig

IMAGE = InputSpec(shape=("batch", 1, 8, 8), mean=(0.5,), std=(0.5,), resize=8)
ROW = TableSpec(width=4, columns=("a", "b", "c", "d"), name="row")
TEXT = TextSpec(vocabulary=12, pad=0, max_length=9, mask="mask")
FINE, COARSE = FeatureSpec("map", ("batch", 16, 8, 8)), FeatureSpec("map", ("batch", 32, 4, 4))
VECTOR = FeatureSpec("vector", ("batch", 16))
TOKENS, MASK = FeatureSpec("sequence", ("batch", "sequence", 16)), FeatureSpec("mask", ("batch", "sequence"))
LABELS = ("no", "yes")


def part(name, *arguments):
    """A builder of something in severalfeatures_parts, which imports torch."""

    def build(*more):
        import severalfeatures_parts

        return getattr(severalfeatures_parts, name)(*arguments, *more)

    return build


def backbone(name, reads, features, build, **more) -> BackboneSpec:
    return BackboneSpec(
        name=name, summary="-", license="Apache-2.0", input=reads, features=features, build=build, **more
    )


def head(name, reads, **more) -> HeadSpec:
    options = {"takes": ("map", "vector", "sequence", "mask"), "task": "*-classification", "build": part("Means")}
    return HeadSpec(name=name, summary="-", reads=reads, **{**options, **more})


PYRAMID = {"fine": FINE, "coarse": COARSE}
BACKBONES = [
    backbone("pyramid", IMAGE, PYRAMID, part("Pyramid"), cuts=(Cut("first", FINE),)),
    backbone("encoders", MappingSpec(fields={"image": IMAGE, "row": ROW}), {"seen": FINE, "told": VECTOR}, part("Two")),
    backbone("tokens", TEXT, {"tokens": TOKENS, "mask": MASK}, part("Tokens")),
    backbone("one-named", IMAGE, {"fine": FINE}, part("Pyramid", ("fine",))),
    backbone("lacks-one", IMAGE, PYRAMID, part("Pyramid", ("fine",))),
    backbone("other-names", IMAGE, PYRAMID, part("Pyramid", ("fine", "rough"))),
    backbone("other-shape", IMAGE, {"fine": FINE, "coarse": FeatureSpec("map", ("batch", 32, 5, 4))}, part("Pyramid")),
    backbone("one-tensor", IMAGE, PYRAMID, part("First")),
    backbone("says-one", IMAGE, FINE, part("Pyramid")),
]
HEADS = [
    head("all-of-them", ("*",)),
    head("fine-alone", ("fine",)),
    head("coarse-alone", ("coarse",), takes=("map",)),
    head("both-levels", ("coarse", "fine")),
    head("vectors-alone", ("*",), takes=("vector",)),
    head(
        "scores-second",
        ("fine",),
        build=part("VectorAndScores"),
        decoder="class-scores",
        decoder_config=OutputConfig(output="scores"),
    ),
    head("looks-at-inputs", ("*",), takes=("sequence", "mask"), decoder="scores-of-what-was-read"),
    head("each-token", ("tokens", "mask"), task="token-classification", build=part("EachToken")),
]


@hookimpl
def pocketzoo_backbones():
    return BACKBONES


@hookimpl
def pocketzoo_decoders():
    return [
        DecoderSpec(
            name="scores-of-what-was-read", summary="-", tasks=("text-classification",), open=part("looking_at_inputs")
        )
    ]


@hookimpl
def pocketzoo_heads():
    return HEADS


def samples(name: str, count: int = 60, seed: int = 0) -> Dataset:
    """Samples of a backbone whose class is plain: bright images, rows above 0, texts with a token above 6."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 2, count)
    images = generator.integers(0, 100, (count, 8, 8)).astype(np.uint8) + (100 * y).astype(np.uint8)[:, None, None]
    if name == "encoders":
        rows = generator.normal(size=(count, 4)) + y[:, None]
        x = [{"image": image, "row": row.astype(np.float32)} for image, row in zip(images, rows, strict=True)]
    elif name == "tokens":
        ids = np.where(
            np.arange(9) < generator.integers(3, 10, count)[:, None], generator.integers(1, 6, (count, 9)), 0
        )
        ids[np.arange(count), 1] = np.where(y, 9, 3)
        x = ids
    else:
        x = list(images)
    return from_arrays(name, LABELS, x, y, seed)


def registry() -> Registry:
    """What ships, and this."""
    return Registry(create_manager(points=[EntryPoint("several-features", "severalfeatures", "pocketzoo")]))
