"""A bundle to a file that a device runs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from pocketzoo.deploy.export_parts import export_parts
from pocketzoo.errors import ExportError
from pocketzoo.progress import SILENT, Progress
from pocketzoo.zoo.bundle import MANIFEST, Bundle, part_name, read_bundle, updating
from pocketzoo.zoo.pretrained import open_model
from pocketzoo.zoo.registry import Registry, default_registry
from pocketzoo.zoo.specs import ExporterSpec, TargetSpec


def export(
    model: str | Path,
    *,
    to: str = "onnx",
    target: str | None = None,
    out: str | Path | None = None,
    registry: Registry | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Export a bundle or registered model; returns the file that was written.

    An int8 bundle is encoded for ``target`` (default: the exporter's own) from its saved plan. Without ``out`` the file
    goes into the bundle, or for a registered model into the current folder. Of a model that writes text the graphs that
    write become files as well, ``NAME.decoder.onnx`` and so on beside ``NAME.onnx``.

    Raises:
        UnknownNameError: an unknown model, exporter or target.
        MissingDependencyError: the target's package is not installed.
        ExportError: the target refuses the graph.
    """
    registry = registry or default_registry()
    exporter: ExporterSpec = registry.get("exporter", to)
    spec: TargetSpec = registry.get("target", target or exporter.default_target)
    bundle = open_model(model, registry=registry, progress=progress)
    inside = out is None and Path(model).exists()
    name = f"{bundle.manifest.name}{exporter.suffix}" if out is None else ""
    place = Path(out) if out is not None else Path(name)
    if place.is_dir():
        raise ExportError(f"{place} is a folder", "give a file name with -o")
    if out is not None and (place.parent / MANIFEST).is_file():
        raise ExportError(f"{place} is inside a bundle", "leave out -o to add the export to its bundle")
    with tempfile.TemporaryDirectory() as folder:
        parts = export_parts(bundle, exporter, spec, Path(folder), registry, progress, into_bundle=inside)
        bundle = read_bundle(bundle.path) if parts else bundle  # which may have got its graphs that write just now
        graph = graph_for(bundle, spec, registry, Path(folder))
        if not inside:
            exporter.export(graph, place, spec, progress)
            for made_part in parts:
                beside = place.with_name(f"{place.stem}.{made_part.part}{place.suffix}")
                shutil.copyfile(made_part.file, beside)
                progress.say(f"wrote {beside}, its {made_part.part}, which writes")
            return place
        made = Path(folder) / f"export{exporter.suffix}"
        exporter.export(graph, made, spec, progress)
        precision = next((e.precision for e in bundle.manifest.files.values() if e.target), "float32")
        encoded = len(bundle.graphs()) > 1  # by a step on the graph
        kind = f"{precision}.{spec.name}" if encoded or exporter.suffix != ".onnx" else ""
        name = f"model.{kind}{exporter.suffix}" if kind else f"model{exporter.suffix}"
        with updating(bundle) as draft:
            mark = spec.name if kind else ""
            shutil.copyfile(made, draft.mark(name, target=mark, precision=precision))
            for made_part in parts:
                # As an .onnx a float part is in the bundle for all targets.
                own = "" if made_part.precision == "float32" and exporter.suffix == ".onnx" else spec.name
                called = Path(part_name(made_part.part, own, made_part.precision)).with_suffix(exporter.suffix).name
                marked = draft.mark(called, target=own, precision=made_part.precision, part=made_part.part)
                shutil.copyfile(made_part.file, marked)
                progress.say(f"wrote {called}, its {made_part.part}, which writes")
    return bundle.path / name


def graph_for(bundle: Bundle, target: TargetSpec, registry: Registry, folder: Path) -> Path:
    """The bundle's graph for a target: the one it has, else encoded into ``folder`` from its plan."""
    graphs = bundle.graphs()
    if target.name in graphs:
        return graphs[target.name]
    if len(graphs) == 1:  # nothing but the float graph: no step made it target-specific
        return bundle.graph("")
    import onnx

    from pocketzoo.compress.pipeline import encode

    encoded = encode(bundle, target, registry)
    if encoded is None:
        return graphs[""]
    path = folder / "encoded.onnx"
    onnx.save(encoded, path)
    return path
