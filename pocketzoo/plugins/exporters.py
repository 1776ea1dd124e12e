"""The file formats a graph can be turned into."""

from __future__ import annotations

from pathlib import Path

from pocketzoo.plugins.hookspecs import hookimpl
from pocketzoo.progress import Progress
from pocketzoo.zoo.specs import ExporterSpec, TargetSpec


def _onnx(graph: Path, out: Path, target: TargetSpec, progress: Progress) -> None:
    import shutil

    from pocketzoo.zoo.files import replacing_file

    with replacing_file(out) as temporary:
        shutil.copyfile(graph, temporary)


def _engine(graph: Path, out: Path, target: TargetSpec, progress: Progress) -> None:
    from pocketzoo.deploy.tensorrt import save_engine

    save_engine(graph, out, target, progress=progress)


@hookimpl
def pocketzoo_exporters() -> list[ExporterSpec]:
    return [
        ExporterSpec(name="onnx", summary="ONNX graph", suffix=".onnx", default_target="cpu", export=_onnx),
        ExporterSpec(
            name="tensorrt",
            summary="TensorRT engine, built on the GPU it will run on",
            suffix=".engine",
            default_target="tensorrt",
            export=_engine,
        ),
        ExporterSpec(
            name="tensorrt-rtx",
            summary="TensorRT-RTX engine, built on any machine",
            suffix=".engine",
            default_target="tensorrt-rtx",
            export=_engine,
        ),
    ]
