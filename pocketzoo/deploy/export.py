"""Export a bundle to a file that a device runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from pocketzoo.core.errors import ExportError, nearest
from pocketzoo.core.files import scratch_folder
from pocketzoo.core.names import as_file_name, check_folder_name, check_suffix
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.renamed import keywords_renamed
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.deploy.export_forms import check_computes, files_of, find_form, put_files, target_of
from pocketzoo.deploy.export_graphs import (
    LONGEST,
    ExportedGraph,
    export_folders,
    export_others,
    graphs_for,
    with_all_graphs,
)
from pocketzoo.zoo.artifacts.drivers import artifact_of, ends
from pocketzoo.zoo.backends.open_backend import backend_of, open_backend
from pocketzoo.zoo.bundles.bundle import Bundle, graph_name, updating
from pocketzoo.zoo.bundles.bundle_lock import check_unsigned, check_writable
from pocketzoo.zoo.bundles.manifest import MODEL
from pocketzoo.zoo.bundles.work_folder import check_outside
from pocketzoo.zoo.catalog.backend import BackendSpec
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.catalog.described import spec_of
from pocketzoo.zoo.catalog.engine_options import EngineOptions, Sizes
from pocketzoo.zoo.catalog.export_request import ExportRequest
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.catalog.registry import Registry, default_registry
from pocketzoo.zoo.catalog.specs import ExporterSpec, TargetSpec
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.open_processor import processor_of, spec_and_config
from pocketzoo.zoo.data.random_samples import random_samples
from pocketzoo.zoo.graphs.foreign.refused_operators import say_refused
from pocketzoo.zoo.graphs.layer_cost import FLOATS
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver

INT8 = "int8"
USUAL = 128  # of a free axis such as tokens: what an engine is tuned for


@survives_exit
def export(
    model: str | Path,
    *,
    to: str = "onnx",
    target: str | None = None,
    out: str | Path | None = None,
    precision: str = "fp32",
    engine: EngineOptions | None = None,
    data: str | Path | Dataset | None = None,
    calibration_cache: str | Path | None = None,
    outputs: Sequence[str] = (),
    force: bool = False,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Export a bundle or registered model; returns the path of the file or folder.

    ``to`` names an exporter, or a back end that builds a form of its own. An int8 bundle is encoded for ``target``
    (default: that of ``to``) from its saved plan. ``precision`` ("fp16", "bf16") converts the float layers where their
    values stay in range, as samples of ``data`` show. "fp8" runs the layers of an int8 plan in fp8, that of the bundle
    or one that is made of ``data``, which weights are rounded to suit, and the rest in fp16. "int8" quantizes a float
    model on ``data``, or by the scales of a ``calibration_cache`` of TensorRT's; "int8-fp16" and "int8-bf16" convert
    the rest too. ``outputs`` names those that are held to what a precision has to reach (default: all). ``engine`` has
    options for building an engine. Without ``out`` the file goes into the bundle; folders, half-precision graphs, what
    is quantized here, and anything of a registered model go into the current folder. A language model exports its
    generation graphs too, ``NAME.decoder.onnx`` and so on alongside ``NAME.onnx``, in the precision they have.
    ``force`` changes a bundle that is signed, which drops its signature.

    Raises:
        SignatureError: the file is to go into a bundle that is signed, and ``force`` does not say to.
        UnknownNameError: an unknown model, exporter, target or output.
        MissingDependencyError: the target's package is not installed.
        ExportError: the target refuses the graph or the precision, or this machine cannot build for it.
        RecipeError: lengths of an axis that cannot be.
    """
    resolver = Resolver.of(registry)
    exporter, builder = find_form(to, resolver.registry)
    spec = target_of(exporter, target, resolver.registry)
    if engine is not None and not exporter.asks:
        raise ExportError(f"--to {to} does not build an engine, and engine options were given", "leave them out")
    if engine is not None and builder is not None:
        engine.check(builder.build_options, f"--to {to}")
    check_computes(spec, precision, resolver.registry)
    if precision != "fp32" and builder is not None:
        _check_builder(builder, spec)
    quantizes = precision.partition("-")[0] == INT8 or (precision == "fp8" and data is not None)
    if calibration_cache is not None and precision.partition("-")[0] != INT8:
        raise ExportError(f"a calibration cache is for int8, and the precision is {precision}", "add --precision int8")
    if outputs and precision == "fp32":
        raise ExportError("outputs to hold were given, and the precision is fp32: nothing changes", "leave them out")
    bundle = open_model(model, registry=resolver, progress=progress)
    write = partial(
        _export, exporter=exporter, builder=builder, spec=spec, engine=engine, data=data, force=force,
        outputs=tuple(outputs), resolver=resolver, progress=progress,
    )  # fmt: skip
    if not quantizes:
        return write(bundle, Path(model).exists(), out, precision)
    rest = precision if precision == "fp8" else precision.partition("-")[2] or "fp32"
    if bundle.targets() != ("",):
        return write(bundle, Path(model).exists(), out, rest)
    from pocketzoo.deploy.int8_export import quantized  # it needs onnx

    place = Path(out or f"{as_file_name(bundle.manifest.name)}.{precision}{exporter.suffix}")
    _check_place(place, exporter, named_by_user=out is not None)
    with scratch_folder() as folder:
        bundle = quantized(
            bundle, spec, folder, data=data, cache=calibration_cache, outputs=tuple(outputs), resolver=resolver,
            progress=progress,
        )  # fmt: skip
        return write(bundle, False, place, rest)


def _export(
    bundle: Bundle,
    lies_here: bool,
    out: str | Path | None,
    precision: str,
    *,
    exporter: ExporterSpec,
    builder: BackendSpec | None,
    spec: TargetSpec,
    engine: EngineOptions | None,
    data: str | Path | Dataset | None,
    outputs: tuple[str, ...],
    force: bool,
    resolver: Resolver,
    progress: Progress,
) -> Path:
    """``export`` of a bundle that was opened; ``lies_here``: by its path, so that it can take the file."""
    alongside = exporter.folder or (precision != "fp32" and not exporter.asks)
    inside = out is None and lies_here and not alongside
    half = "" if precision == "fp32" else f".{precision}"
    name = f"{as_file_name(bundle.manifest.name)}{half if alongside else ''}{exporter.suffix}" if out is None else ""
    place = Path(out) if out is not None else Path(name)
    backend = builder.name if builder is not None else ""
    _check_place(place, exporter, named_by_user=out is not None)
    if inside:
        check_unsigned(bundle.path, force=force)
        check_writable(bundle.path)
    with scratch_folder() as folder:
        options = engine or EngineOptions()
        bundle = with_all_graphs(bundle, exporter, folder, resolver, progress, into_bundle=inside, force=force)
        graphs = graphs_for(bundle, spec, resolver, folder)
        say_refused(graphs.values(), (spec,), progress)
        if precision != "fp32":
            from pocketzoo.deploy.export_precision import in_precision  # here: a stored graph is copied without onnx

            if precision == "fp8" and builder is not None:
                _check_support(spec, precision, resolver)
            batches = partial(_samples, bundle, data, resolver, precision)
            graphs |= in_precision(
                bundle, graphs, spec, precision, batches, resolver, folder, progress, outputs=outputs
            )
        requests = graph_requests(bundle, graphs, options, resolver.registry, _owner(spec, resolver))
        first = ends(replace(artifact_of(bundle), graphs=graphs))[0].graphs
        if exporter.folder and first != (MODEL,):
            export_folders({name: graphs[name] for name in first}, place, exporter, spec, requests, progress)
            return place
        others = export_others(bundle, graphs, exporter, spec, requests, folder, progress)
        others = [replace(e, precision=_named(e.precision, precision)) if e.graph in first else e for e in others]
        if (graph := graphs.get(MODEL)) is None:
            if inside:
                return _into_bundle(bundle, (), others, exporter, spec, precision, backend, progress, force=force)
            return _put_alongside(others, place, progress)[0]
        request = [requests[MODEL]] * exporter.asks
        written = folder / "written" / f"export{exporter.suffix}"
        written.parent.mkdir()
        if not inside and builder is None:
            exporter.export(graph, place, spec, progress, *request)
        else:
            exporter.export(graph, written, spec, progress, *request)
        if not inside:
            if builder is not None:
                put_files(files_of(written), place)
            _put_alongside(others, place, progress)
            return place
        return _into_bundle(
            bundle, files_of(written), others, exporter, spec, precision, backend, progress, force=force
        )


def _put_alongside(exported: Sequence[ExportedGraph], place: Path, progress: Progress) -> list[Path]:
    siblings = []
    for graph in exported:
        siblings.append(place.with_name(f"{place.stem}.{graph.graph}{place.suffix}"))
        put_files(files_of(graph.file), siblings[-1])
        progress.say(f"wrote {siblings[-1]}, its {graph.graph}{graph.why}")
    return siblings


def _into_bundle(
    bundle: Bundle,
    files: Sequence[Path],
    others: Sequence[ExportedGraph],
    exporter: ExporterSpec,
    target: TargetSpec,
    precision: str,
    backend: str,
    progress: Progress,
    *,
    force: bool,
) -> Path:
    """Add what was exported to the bundle; the file that is loaded."""
    encoded = bundle.targets() != ("",)  # by a step on the graph
    graphs = [e for name, e in bundle.manifest.files.items() if e.target and name.endswith(".onnx")]
    float_precision = _named(next((e.precision for e in graphs), bundle.float_precision), precision)
    kind = f"{float_precision}.{target.name}" if encoded or exporter.suffix != ".onnx" else ""
    name = f"model.{kind}{exporter.suffix}" if kind else f"model{exporter.suffix}"
    with updating(bundle, force=force, progress=progress) as draft:
        names = [name] if files else []
        if files:
            draft.put(files, name, target=target.name if kind else "", precision=float_precision, backend=backend)
        for graph in others:
            # As an .onnx a float graph is in the bundle for all targets.
            own = "" if graph.precision in FLOATS and exporter.suffix == ".onnx" else target.name
            names.append(Path(graph_name(own, graph.precision, graph.graph)).with_suffix(exporter.suffix).name)
            written = files_of(graph.file)
            draft.put(written, names[-1], target=own, precision=graph.precision, graph=graph.graph, backend=backend)
            progress.say(f"wrote {names[-1]}, its {graph.graph}{graph.why}")
    return bundle.path / names[0]


def _owner(target: TargetSpec, resolver: Resolver) -> BackendSpec | None:
    """The back end of a target, where that is known here."""
    return backend_of(target, resolver.registry)[0]


def _check_support(target: TargetSpec, precision: str, resolver: Resolver) -> None:
    """Raises:
    ExportError: the target's back end cannot build graphs of this precision here.
    """
    owner, target = backend_of(target, resolver.registry)
    if owner is None:
        return
    backend = open_backend(owner)
    if backend.support(target).builds and not (support := backend.support(target, precision)).builds:
        raise ExportError(support.why, support.fix)


def _check_builder(builder: BackendSpec, target: TargetSpec) -> None:
    """Before samples are read.

    Raises:
        ExportError: what builds for the target is not installed, or does not build on this machine.
    """
    support = open_backend(builder).support(target)
    if not support.builds:
        raise ExportError(
            f"no engine can be built here: {support.why}",
            f"{support.fix}; the graph for it, which trtexec builds elsewhere: --to trtexec --target {target.name}",
        )


def _check_place(place: Path, exporter: ExporterSpec, *, named_by_user: bool) -> None:
    if named_by_user and exporter.folder:
        if not place.name.endswith(exporter.suffix):
            check_folder_name(place, f"what --to {exporter.name} writes")
    elif named_by_user:
        check_suffix(place, [exporter.suffix], f"a{'n' * (exporter.suffix[1:2] in 'aeiox')} {exporter.suffix} file")
    if exporter.folder and place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ExportError(f"{place} exists", "remove it, or choose another place with -o")
    if place.is_dir() and not exporter.folder:
        raise ExportError(f"{place} is a folder", "give a file name with -o")
    if named_by_user:
        check_outside(place, "leave out -o to add the export to its bundle")


def graph_requests(
    bundle: Bundle,
    graphs: Mapping[str, Path],
    options: EngineOptions,
    registry: Registry,
    backend: BackendSpec | None = None,
) -> dict[str, ExportRequest]:
    """What an exporter is told of each graph. Lengths of axes are given to the graphs that have such axes.

    Raises:
        ExportError: lengths were given for an axis that none of several graphs has.
    """
    if list(graphs) == [MODEL]:
        return {MODEL: replace(export_request(bundle, options, registry), backend=backend)}
    from pocketzoo.zoo.graphs.signature import signature_of  # here: a graph by itself is copied without onnx

    every = ends(replace(artifact_of(bundle), graphs=graphs))
    lengths = {name: next(end for end in every if name in end.graphs).lengths(name, LONGEST) for name in graphs}
    axes = {
        name: set() if lengths[name] else {axis for t in signature_of(path).inputs for axis in t.free.values()}
        for name, path in graphs.items()
    }
    known = sorted(set().union(*axes.values()))
    if unknown := [axis for axis in options.shapes if axis not in known]:
        raise ExportError(f"no graph has a dynamic axis {unknown[0]!r} to give lengths for", nearest(unknown[0], known))
    requests = {}
    for name in graphs:
        shapes = {axis: sizes for axis, sizes in options.shapes.items() if axis in axes[name]}
        own = replace(options, shapes=shapes, usual=dict(lengths[name]) or options.usual)
        requests[name] = replace(export_request(bundle, own, registry, name), backend=backend)
    return requests


def export_request(
    bundle: Bundle, options: EngineOptions, registry: Registry | None = None, graph: str = MODEL
) -> ExportRequest:
    """The processor and states of one graph of a model, the default batch sizes and lengths of its engine."""
    manifest, registry = bundle.manifest, registry or default_registry()
    spec, config = spec_of(manifest.processor, "processor", registry)
    processor, usual = processor_of(bundle, registry), dict[str, Sizes]()
    if processor.lengths is not None:
        least, most = processor.lengths
        free = {name for t in processor.inputs for axis, name in t.free.items() if axis != t.batch}
        usual = dict.fromkeys(sorted(free), (least, max(least, min(USUAL, most)), most))
    usual |= {axis: (length, length, length) for axis, length in getattr(processor, "taken", {}).items()}
    usual |= {axis: sizes for axis, sizes in _known_sizes(bundle, processor).items() if axis not in usual}
    if manifest.one_by_one and manifest.signature is not None:  # nor is an engine run on more
        runs = [t.free[t.batch] for t in manifest.signature.inputs if t.batch is not None and t.batch in t.free]
        usual |= dict.fromkeys(runs, (1, 1, 1))
    if graph != MODEL and spec.parts and graph in (parts := getattr(config, spec.parts)):
        spec, config = spec_and_config(parts[graph], registry)
    return ExportRequest(
        name=as_file_name(manifest.name if graph == MODEL else f"{manifest.name}-{graph}"),
        input=config,
        processor=spec.name,
        modality=spec.modality,
        graph=None if spec.graph is None else partial(spec.graph, config),
        labels=manifest.labels if graph == MODEL else (),
        returns=manifest.returns,
        states=artifact_of(bundle).states,
        options=replace(options, usual={**usual, **options.usual}),
    )


def _known_sizes(bundle: Bundle, processor: Processor) -> dict[str, Sizes]:
    """The lengths of free axes that all samples come in, such as the pixels that images are scaled to."""
    signature = bundle.manifest.signature
    if signature is None or processor.lengths is not None or all(not t.free for t in signature.inputs):
        return {}
    sample = random_samples(processor, 1)
    return {
        name: (sample[tensor.name].shape[axis],) * 3
        for tensor in signature.inputs
        for axis, name in tensor.free.items()
        if axis != tensor.batch and tensor.name in sample and sample[tensor.name].ndim == len(tensor.shape)
    }


def _samples(
    bundle: Bundle,
    data: str | Path | Dataset | None,
    resolver: Resolver,
    precision: str,
    split: Literal["train", "val"],
) -> Batches | None:
    if data is None:
        return None
    processor = processor_of(bundle, resolver.registry)
    # Weights are fitted on texts one by one: padding says nothing about them.
    size = 1 if precision == "fp8" and split == "train" and processor.lengths is not None else 32
    rows = load_data(
        data, reads=bundle.manifest.processor, fitted=bundle.manifest.data_columns, registry=resolver.registry
    ).split(split)
    return Batches(rows, processor, size=size)


def _named(float_precision: str, precision: str) -> str:
    """What a graph's entry says of its precision; ``float_precision`` is that of the bundle's own graphs."""
    if precision == "fp32":
        return float_precision
    return precision if float_precision in FLOATS or precision == "fp8" else f"{float_precision}-{precision}"


@keywords_renamed(registry="resolver")
def graph_for(
    bundle: Bundle, target: TargetSpec, resolver: Registry | Resolver, folder: Path, name: str = MODEL
) -> Path:
    """One graph of a bundle for a target: stored, or else encoded from its plan into ``folder``, or float."""
    return graphs_for(bundle, target, Resolver.of(resolver), folder)[name]
