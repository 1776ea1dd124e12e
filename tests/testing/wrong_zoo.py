"""A plugin with one defect a spec, and one spec of each kind that has none. test_conformance_suite.py installs it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy  # noqa: F401  # the plugin's own defect: listing it loads numpy
import wrong_backends
import wrong_compressors
import wrong_tasks

from pocketzoo import hookimpl
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.backends.onnxruntime.facts import OnnxruntimeFacts
from pocketzoo.zoo.catalog.compressor import ModuleCompressor
from pocketzoo.zoo.catalog.specs import (
    BackboneSpec,
    Cut,
    DatasetSpec,
    ExporterSpec,
    FeatureSpec,
    HeadSpec,
    HubFile,
    InputSpec,
    Int8Encoding,
    PackageFile,
    TargetSpec,
    Weights,
)

calls = itertools.count()


def part(name, *arguments, **options):
    """A builder of something in wrong_zoo_parts, which imports torch."""

    def build(*more):
        import wrong_zoo_parts

        return getattr(wrong_zoo_parts, name)(*arguments, *more, **options)

    return build


INPUT = InputSpec(shape=("batch", 1, 8, 8), mean=(0.5,), std=(0.5,), resize=8)
FEATURES = FeatureSpec("map", ("batch", 32, 8, 8))
PINNED = PackageFile(package="wrong_zoo_files", path="w.safetensors", sha256="0" * 64)
STEM = FeatureSpec("map", ("batch", 16, 8, 8))
SEVERAL = {"features": {"deep": FEATURES, "early": STEM}, "build": part("Net", fault="several"), "cuts": ()}
LONE = FeatureSpec("mask", ("batch", "tokens"))
FINE = BackboneSpec(
    name="fine",
    summary="a convolution without a defect",
    license="Apache-2.0",
    input=INPUT,
    features=FEATURES,
    build=part("Net"),
    cuts=(Cut("stem", FeatureSpec("map", ("batch", 16, 8, 8))),),
)


def backbone(name, **changes):
    return replace(FINE, name=name, **changes)


def weights(file):
    return {"weights": Weights(file=file), "source": "https://example.org"}


@hookimpl
def pocketzoo_backbones():
    branch = HubFile(repo_id="owner/name", revision="main", filename="w.safetensors", sha256="0" * 64)
    return [
        FINE,
        backbone("BadName"),
        backbone("no-summary", summary=""),
        backbone("new-summary", summary=f"called {next(calls)} times"),
        backbone("no-license", license=""),
        backbone("odd-license", license="my own license"),
        backbone("unpinned", **weights(branch)),
        backbone("unhashed", **weights(replace(PINNED, sha256="abc"))),
        backbone("unread", **weights(replace(PINNED, path="w.bin"))),
        backbone("other-bytes", **weights(PINNED)),
        backbone("absent", **weights(replace(PINNED, package="not_installed_here"))),
        backbone("no-source", weights=Weights(file=replace(PINNED, package="not_installed_here"))),
        backbone("one-mean", input=replace(INPUT, mean=(0.5, 0.5))),
        backbone("zero-std", input=replace(INPUT, std=(0.0,))),
        backbone("small-resize", input=replace(INPUT, resize=4)),
        backbone("no-vector", features=FeatureSpec("vector", ("batch", 32, 8, 8))),
        backbone("not-built", build=part("raises")),
        backbone("not-a-module", build=part("text")),
        backbone("wrong-shape", features=FeatureSpec("map", ("batch", 31, 8, 8))),
        backbone("fixed-batch", build=part("Net", fault="batch")),
        backbone("not-finite", build=part("Net", fault="nan")),
        backbone("a-tuple", build=part("Net", fault="tuple")),
        backbone("chance", build=part("Net", fault="chance")),
        backbone("no-such-cut", cuts=(Cut("nowhere", FEATURES),)),
        backbone("wrong-cut", cuts=(Cut("stem", FEATURES),)),
        backbone("unused-cut", cuts=(Cut("unused", FEATURES),)),
        backbone("no-head", head="nowhere"),
        backbone("other-head", head="of-fine"),
        backbone("no-graph", build=part("Net", fault="branch"), cuts=()),
        backbone("fine-several", **SEVERAL),
        backbone("lost-name", **{**SEVERAL, "features": {"deep": FEATURES, "late": STEM}}),
        backbone("other-level", **{**SEVERAL, "features": {"deep": FEATURES, "early": FEATURES}}),
        backbone("lone-mask", **{**SEVERAL, "features": {"deep": FEATURES, "early": LONE}}),
        backbone("odd-level", **{**SEVERAL, "features": {"deep": FEATURES, "../early": STEM}}),
        backbone("fragile", build=part("Net", fault="fragile"), cuts=()),
    ]


HEAD = HeadSpec(
    name="fine",
    summary="a linear layer without a defect",
    takes=("map", "vector", "sequence"),
    task="*-classification",
    build=part("head"),
)


def head(name, **changes):
    return replace(HEAD, name=name, **changes)


@hookimpl
def pocketzoo_heads():
    own = {"backbone": "fine", "takes": ("map",), "labels": lambda: ("yes", "no")}
    return [
        HEAD,
        head("takes-nothing", takes=()),
        head("maps-alone", build=part("head", fault="map")),
        head("one-too-many", build=part("head", fault="outputs")),
        head("chance", build=part("head", fault="chance")),
        head("no-gradient", build=part("head", fault="unused")),
        head("no-loss", loss="cross_entropie"),
        head("no-task", task=""),
        head("other-task", task="nowhere"),
        head("other-decoder", decoder="values"),
        head("softmax", task="", returns="probabilities"),
        head("fine-of-all", reads=("*",), takes=("map", "vector"), build=part("SumOfHeads")),
        head("fine-of-two", reads=("deep", "early"), takes=("map",), build=part("SumOfHeads")),
        head("unused-level", reads=("*",), takes=("map", "vector"), build=part("SumOfHeads", fault="first")),
        head("no-such-level", reads=("late",), takes=("map",), backbone="fine-several"),
        head("loose-options", options=Loose, build=part("optional_head")),
        head("two-arguments", options=Fixed, build=part("two_arguments")),
        head("of-fine", **own),
        head("of-none", **{**own, "backbone": "nowhere"}),
        head("double-label", **{**own, "labels": lambda: ("yes", "yes")}),
        head("no-label", **{**own, "labels": None}, weights=Weights(file=PINNED)),
        head("other-bytes", **own, weights=Weights(file=PINNED)),
    ]


@dataclass(frozen=True)
class Config:
    scale: float = 0.5


@dataclass(frozen=True)
class Plan:
    layers: tuple[str, ...] = ()
    seed: int = 0


@dataclass
class Loose:
    scale: float = 0.5


@dataclass(frozen=True)
class Fixed:
    scale: float = 0.5


@dataclass(frozen=True)
class Strict:
    scale: float


@dataclass(frozen=True)
class SetPlan:
    layers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class AnyConfig:
    values: dict[int, int] = field(default_factory=lambda: {1: 2})


COMPRESSOR = ModuleCompressor(
    name="fine",
    summary="halves weights, without a defect",
    config=Config,
    plan_type=Plan,
    plan=part("plan"),
    apply=part("apply"),
)


def compressor(name, **changes):
    return replace(COMPRESSOR, name=name, **changes)


@hookimpl
def pocketzoo_compressors():
    return [
        COMPRESSOR,
        compressor("loose", config=Loose),
        compressor("no-defaults", config=Strict),
        compressor("no-recipe", config=AnyConfig),
        compressor("changes-model", plan=part("plan", fault="model")),
        compressor("changes-samples", plan=part("plan", fault="samples")),
        compressor("chance", plan=part("plan", fault="chance")),
        compressor("plans-a-set", plan=part("plan", fault="set"), plan_type=SetPlan),
        compressor("in-place", apply=part("apply", fault="model")),
        compressor("not-finite", apply=part("apply", fault="nan")),
        compressor("forgets", apply=part("apply", fault="forgets")),
        *wrong_compressors.compressors(),
    ]


EXPORTER = ExporterSpec(
    name="fine", summary="copies the graph", suffix=".bin", default_target="cpu", export=part("export")
)


@hookimpl
def pocketzoo_exporters():
    return [
        EXPORTER,
        replace(EXPORTER, name="no-target", default_target="nowhere"),
        replace(EXPORTER, name="writes-nothing", export=part("export", fault="nothing")),
        replace(EXPORTER, name="eats-graph", export=part("export", fault="eats")),
    ]


TARGET = TargetSpec(
    name="fine",
    summary="a device without a defect",
    int8=Int8Encoding(activations="int8", symmetric=True, int32_bias=False, fuses_add=False),
)


@hookimpl
def pocketzoo_targets():
    return [
        TARGET,
        replace(TARGET, name="uneven", int8=replace(TARGET.int8, activations="uint8")),
        replace(TARGET, name="no-channels", channel_multiple=0),
        replace(TARGET, name="old", opset=9),
        replace(TARGET, name="odd-engine", engine="no module", device="gpu"),
        replace(TARGET, name="behind", newest_opset=17),
        replace(TARGET, name="fp12", precisions=("fp32", "fp12")),
        replace(TARGET, name="fp8-alone", precisions=("fp32", "fp8")),
        replace(TARGET, name="no-fp32", precisions=("int8",)),
        replace(TARGET, name="mute", refuses={"Loop": ""}),
        replace(TARGET, name="both", refuses={"Loop": "unroll it"}, slow={"Loop": "unroll it"}),
        replace(TARGET, name="no-back-end", backend="nowhere"),
        replace(TARGET, name="facts-alone", facts=OnnxruntimeFacts()),
        replace(TARGET, name="other-facts", backend="tensorrt", facts=OnnxruntimeFacts()),
        replace(TARGET, name="refuses-all", refuses={"Conv": "use none"}),
    ]


def dataset(name, **options):
    return DatasetSpec(name=name, summary="noise in two classes", license="CC0-1.0", load=part("noise", **options))


def absent():
    raise DataError(f"there is nothing in {Path('nowhere')}", "put it there")


@hookimpl
def pocketzoo_datasets():
    return [
        dataset("fine"),
        replace(dataset("absent"), load=absent),
        dataset("fails", fault="fails"),
        dataset("an-array", fault="array"),
        dataset("no-val", fault="empty"),
        dataset("leaks", fault="leaks"),
        dataset("too-many", fault="targets"),
        dataset("never-seen", fault="unseen"),
        dataset("chance", fault="chance"),
    ]


@hookimpl
def pocketzoo_tasks():
    return [*wrong_tasks.tasks(), *wrong_tasks.tasks_of_decoders()]


@hookimpl
def pocketzoo_decoders():
    return wrong_tasks.decoders()


@hookimpl
def pocketzoo_processors():
    return wrong_tasks.processors()


@hookimpl
def pocketzoo_backends():
    return wrong_backends.backends()
