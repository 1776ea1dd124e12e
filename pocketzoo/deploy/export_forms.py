"""The forms that a model can be exported to: what exporters write, and what back ends build."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from pocketzoo.core.errors import ExportError, UnknownNameError, nearest
from pocketzoo.core.files import replacing_file, replacing_folder
from pocketzoo.core.progress import Progress
from pocketzoo.zoo.backends.open_backend import backend_named, backend_of, backends, build, with_facts
from pocketzoo.zoo.catalog.backend import BackendSpec
from pocketzoo.zoo.catalog.export_request import ExportRequest
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import ExporterSpec, TargetSpec
from pocketzoo.zoo.graphs.files.weight_files import copy_graph, weight_files


def find_form(to: str, registry: Registry) -> tuple[ExporterSpec, BackendSpec | None]:
    """What ``export --to`` calls so; a back end that builds as an exporter, and itself.

    Raises:
        UnknownNameError: there is none, or it is a back end that builds nothing.
        PluginError: it is a back end that is left out.
    """
    exporters = registry.entries("exporter")
    if to in exporters:
        return exporters[to].spec, None
    known = backends(registry)
    builders = [name for name, spec in known.specs.items() if spec.builds]
    if to not in known.specs and to not in known.left_out:
        hint = registry.hint(nearest(to, [*exporters, *builders]), "exporter", "backend")
        raise UnknownNameError(f"no exporter is called {to!r}", hint)
    spec = backend_named(to, registry)
    if not spec.builds:
        raise UnknownNameError(
            f"the back end {to!r} builds nothing: it runs graphs as they are", "leave out --to, for the graph"
        )
    form = ExporterSpec(
        name=spec.name,
        summary=spec.summary,
        suffix=spec.suffix,
        default_target=spec.target,
        export=_builder(spec, registry),
        asks=True,
        folder=spec.folder,
    )
    return form, spec


def target_of(form: ExporterSpec, name: str | None, registry: Registry) -> TargetSpec:
    """The target that is exported for: the one that is named, or the form's own.

    Raises:
        UnknownNameError: there is no such target, or the form has none of its own.
    """
    if not (name or form.default_target):
        raise UnknownNameError(f"--to {form.name} has no target of its own", "name one: --target")
    return with_facts(registry.get("target", name or form.default_target), registry)


def check_computes(target: TargetSpec, precision: str, registry: Registry) -> None:
    """Before anything is read.

    Raises:
        ExportError: the target computes in no ``precision`` such as "fp16" or "int8-fp16".
    """
    for part in precision.split("-"):
        if part in target.precisions:
            continue
        others = [entry.spec.name for entry in registry.entries("target").values() if part in entry.spec.precisions]
        known = f"it does in: {', '.join(target.precisions)}"
        able = f"; targets for {part}: {', '.join(sorted(others))}" if others else ""
        raise ExportError(f"{target.name} does not compute in {part}", known + able)


def _builder(spec: BackendSpec, registry: Registry) -> Callable[..., None]:
    def export(graph: Path, out: Path, target: TargetSpec, progress: Progress, request: ExportRequest) -> None:
        owner, target = backend_of(target, registry)
        if owner is None or owner.facts is not spec.facts or not owner.builds:
            own = f"try --target {spec.target}" if spec.target else "name another target"
            if owner is None or not owner.builds:
                raise ExportError(f"target {target.name!r} has no engines: nothing is built for it", own)
            raise ExportError(f"--to {spec.name} does not build for {target.name!r}", f"use --to {owner.name}")
        build(owner, graph, out, target, options=request.options, progress=progress)

    return export


def files_of(main: Path) -> list[Path]:
    """What an exporter wrote as ``main``, that first: files of the same stem belong to it, and a folder is one thing.

    Raises:
        ExportError: it wrote something else alongside, or a folder where files are wanted.
    """
    others = sorted(path for path in main.parent.iterdir() if path.name.startswith(f"{main.stem}.") and path != main)
    if folder := next((path for path in others if path.is_dir()), None):
        raise ExportError(f"a folder {folder.name} was written alongside {main.name}", "write files, or one folder")
    return [main, *others]


def put_files(files: Sequence[Path], place: Path) -> None:
    """Copy what ``files_of`` found: the first to ``place``, the others alongside with its stem."""
    main, *others = files
    if main.is_dir():
        with replacing_folder(place) as folder:
            shutil.copytree(main, folder, dirs_exist_ok=True)
        return
    weights = weight_files(main)
    for each in others:
        if each not in weights:
            with replacing_file(place.with_name(place.stem + each.name.removeprefix(main.stem))) as temporary:
                shutil.copyfile(each, temporary)
    copy_graph(main, place)
