"""Open the processor of a bundle or backbone, by the registry: kinds of processors are known there and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pocketzoo.core.errors import PluginError, PocketzooError, RecipeError, UnsupportedModelError, in_a_line
from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.core.untrusted.limits import INPUT_VALUES
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.described import Described, describe, spec_of
from pocketzoo.zoo.catalog.processor import ForeignInputs, Processor, ProcessorSpec, TrainingSamples
from pocketzoo.zoo.catalog.registry import Entry, Registry, default_registry
from pocketzoo.zoo.catalog.signature import TensorSpec


def processor_of(bundle: Bundle, registry: Registry | None = None) -> Processor:
    """The processor of a bundle, opened with the files that the bundle keeps; see ``open_described`` for errors."""
    return open_described(bundle.manifest.processor, bundle.source_files(), registry or default_registry())


def as_processor(reads: Any, files: Mapping[str, Path] | None = None, registry: Registry | None = None) -> Processor:
    """A processor that was opened as it is, and a config opened: ``open_config``."""
    return reads if callable(reads) else open_config(reads, files, registry)


def open_config(config: Any, files: Mapping[str, Path] | None = None, registry: Registry | None = None) -> Processor:
    """The processor of a backbone, by the config that it has as its ``input``, with its files by name.

    Raises:
        RecipeError: no registered processor has such a config.
        MissingDependencyError: a package that it needs is not installed.
    """
    registry = registry or default_registry()
    return _open(*spec_and_config(config, registry), files or {}, registry)


def open_described(described: Described, files: Mapping[str, Path], registry: Registry) -> Processor:
    """The processor that a bundle describes, with the files of the model by name.

    Raises:
        MissingPluginError: it is of a plugin that is not installed; the hint says which.
        MissingDependencyError: a package that it needs is not installed.
        BundleError: a file of it is missing or damaged.
    """
    return _open(*spec_of(described, "processor", registry), files, registry)


def describe_config(config: Any, registry: Registry | None = None) -> Described:
    """A config as a bundle keeps it, with the name of its processor and who provides that.

    Raises:
        RecipeError: no registered processor has such a config.
    """
    if isinstance(config, Described) and config.name:
        return config
    registry = registry or default_registry()
    spec, config = spec_and_config(config, registry)
    if spec.parts:
        described = {
            name: to_plain(describe_config(part, registry)) for name, part in getattr(config, spec.parts).items()
        }
        config = replace(config, **{spec.parts: described})
    return describe("processor", spec.name, config, registry)


def spec_and_config(config: Any, registry: Registry) -> tuple[ProcessorSpec, Any]:
    """The processor whose config this is, and the config as it reads it.

    Raises:
        RecipeError: there is none, or there are two.
    """
    if isinstance(config, Described):
        return spec_of(config, "processor", registry)
    if isinstance(config, Mapping):  # of a bundle
        return spec_of(from_plain(Described, config), "processor", registry)
    specs: list[ProcessorSpec] = [entry.spec for entry in registry.entries("processor").values()]
    same = [spec for spec in specs if spec.config is type(config)]
    if len(same) == 1:
        # An image's spec of another shape, as plugins had it before there were tables, is what takes it now.
        for spec in specs if same[0].earlier is not None and same[0].earlier(to_plain(config)) is None else ():
            if spec.earlier is not None and (earlier := spec.earlier(to_plain(config))) is not None:
                return spec, earlier
        return same[0], config
    known = ", ".join(sorted({spec.config.__name__ for spec in specs}))
    if same:
        names = " and ".join(spec.name for spec in same)
        raise RecipeError(
            f"the processors {names} both take a {type(config).__name__}",
            "say which: Described(name=..., config=...)",
        )
    raise RecipeError(
        f"no processor takes a {type(config).__name__} as its config",
        registry.hint(f"give one of: {known}", "processor"),
    )


def _open(spec: ProcessorSpec, config: Any, files: Mapping[str, Path], registry: Registry) -> Processor:
    if spec.parts:
        parts = getattr(config, spec.parts)
        opened = {name: _open(*spec_and_config(part, registry), files, registry) for name, part in parts.items()}
    try:
        processor: Processor = spec.open(config, files, opened) if spec.parts else spec.open(config, files)
    except PocketzooError:
        raise
    except (Exception, SystemExit) as error:  # a plugin's own code may fail in any way
        raise PluginError(
            f"the processor {spec.name!r} cannot be opened: {in_a_line(error)}", "tell its author"
        ) from error
    tensors = getattr(processor, "inputs", ())  # a plugin's own object may be anything yet
    for tensor in tensors:
        _check_type(tensor)
    shapes = [[dim for dim in tensor.sample_shape if isinstance(dim, int)] for tensor in tensors]
    values = sum(abs(math.prod(shape)) for shape in shapes)
    INPUT_VALUES.check(values, f"the processor {spec.name!r}", "values to make of one sample")
    return processor


def _check_type(tensor: TensorSpec) -> None:
    from pocketzoo.core.arrays import is_type  # here, as this is imported by what looks around

    if not is_type(tensor.dtype):
        raise UnsupportedModelError(
            f"the input {tensor.name!r} is of the type {tensor.dtype!r}, which no array has",
            "export the model with inputs of another type",
        )


def processor_entries(config: Any, registry: Registry) -> list[Entry]:
    """What declares the processor of a config, and those of its parts: their code is part of what it answers."""
    spec, read = spec_and_config(config, registry)
    parts = getattr(read, spec.parts).values() if spec.parts else ()
    return [registry.entry("processor", spec.name), *(e for part in parts for e in processor_entries(part, registry))]


def needed_files(config: Any, registry: Registry) -> tuple[str, ...]:
    """Names of the model's files that a processor of this config needs, those of its parts included."""
    spec, config = spec_and_config(config, registry)
    own = spec.files(config) if spec.files is not None else ()
    parts = getattr(config, spec.parts).values() if spec.parts else ()
    return (*own, *(name for part in parts for name in needed_files(part, registry)))


def feeding(asked: ForeignInputs, registry: Registry, name: str = "") -> dict[str, Any]:
    """The processors that make the inputs of a foreign graph, by name, with their configs; of ``name`` alone if given.

    Raises:
        UnknownNameError: there is no processor of that name.
    """
    specs = [registry.get("processor", name)] if name else [e.spec for e in registry.entries("processor").values()]
    configs: dict[str, Any] = {}
    for spec in specs:
        if spec.feeds is None:
            continue
        try:
            config = spec.feeds(asked)
        except PocketzooError:
            raise
        except (Exception, SystemExit) as error:  # as in ``_open``
            raise PluginError(
                f"the processor {spec.name!r} does not say what it reads: {in_a_line(error)}", "tell its author"
            ) from error
        if config is not None:
            configs[spec.name] = config
    return configs


def fitted_config(config: Any, training: TrainingSamples, registry: Registry) -> Any:
    """The config with what its processor learns of the training split; in a mapping that of each field.

    Raises:
        DataError: the samples cannot be read, or have nothing to learn.
        RecipeError: something is to stand for values that are missing, and nothing here knows of missing values.
    """
    learned = _fitted(config, training, registry)
    if training.missing and learned is None:
        spec, _ = spec_and_config(config, registry)
        raise RecipeError(
            f"this model reads {spec.modality} input, of which no values are missing", "leave out --set missing"
        )
    return config if learned is None else learned


def _fitted(config: Any, training: TrainingSamples, registry: Registry) -> Any:
    """As ``fitted_config``; None where nothing is learned."""
    spec, config = spec_and_config(config, registry)
    if spec.fit is not None:
        try:
            return spec.fit(config, training)
        except PocketzooError:
            raise
        except (Exception, SystemExit) as error:  # as in ``_open``
            raise PluginError(
                f"the processor {spec.name!r} cannot be fitted: {in_a_line(error)}", "tell its author"
            ) from error
    parts = getattr(config, spec.parts) if spec.parts else {}
    learned = {}
    for name, part in parts.items():
        if all(isinstance(sample, Mapping) and name in sample for sample in training.samples):
            of_field = replace(training, samples=[sample[name] for sample in training.samples], columns=())
            learned[name] = _fitted(part, of_field, registry)
    if all(part is None for part in learned.values()):
        return None
    fitted = {name: parts[name] if learned.get(name) is None else learned[name] for name in parts}
    return replace(config, **{spec.parts: fitted})


def resized_config(config: Any, size: tuple[int, ...], registry: Registry) -> Any:
    """A config for images of ``size`` (height, width) in pixels; in a mapping those of all its images.

    Raises:
        UnsupportedModelError: it reads no images.
    """
    spec, config = spec_and_config(config, registry)
    if spec.parts:
        changed = {}
        for name, part in getattr(config, spec.parts).items():
            try:
                changed[name] = resized_config(part, size, registry)
            except UnsupportedModelError:
                changed[name] = part
        if any(changed[name] is not part for name, part in getattr(config, spec.parts).items()):
            return replace(config, **{spec.parts: changed})
    elif spec.resized is not None and (resized := spec.resized(config, size)) is not None:
        return resized
    raise UnsupportedModelError(
        f"this model reads {spec.modality} input, which has no size in pixels", "leave out --input-size"
    )


def suffixes(registry: Registry, config: Any = None) -> frozenset[str]:
    """Of the files that are one sample each: for a model of this config, or for any that is registered."""
    if config is None:
        return frozenset(s for entry in registry.entries("processor").values() for s in entry.spec.suffixes)
    return frozenset(spec_and_config(config, registry)[0].suffixes)
