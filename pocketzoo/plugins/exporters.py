"""The export formats that ship with pocketzoo, besides those that back ends build (``backends.py``)."""

from __future__ import annotations

from pathlib import Path

from pocketzoo.core.progress import Progress
from pocketzoo.zoo.catalog.export_request import ExportRequest
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.specs import ExporterSpec, TargetSpec


def _onnx(graph: Path, out: Path, target: TargetSpec, progress: Progress) -> None:
    from pocketzoo.zoo.graphs.files.weight_files import copy_graph

    copy_graph(graph, out)


def _triton(graph: Path, out: Path, target: TargetSpec, progress: Progress, request: ExportRequest) -> None:
    from pocketzoo.deploy.triton.model_repository import save_repository

    save_repository(graph, out, target, request, progress=progress)


def _trtexec(graph: Path, out: Path, target: TargetSpec, progress: Progress, request: ExportRequest) -> None:
    from pocketzoo.zoo.backends.tensorrt.trtexec import save_script

    save_script(graph, out, target, request, progress)


@hookimpl
def pocketzoo_exporters() -> list[ExporterSpec]:
    return [
        ExporterSpec(name="onnx", summary="ONNX graph", suffix=".onnx", default_target="cpu", export=_onnx),
        ExporterSpec(
            name="triton",
            summary="model repository for NVIDIA's Triton server, running onnxruntime or TensorRT",
            suffix=".triton",
            default_target="cpu",
            export=_triton,
            asks=True,
            folder=True,
            merges=True,
        ),
        ExporterSpec(
            name="trtexec",
            summary="the graph, and the trtexec command that builds its engine on another machine",
            suffix=".trtexec",
            default_target="tensorrt",
            export=_trtexec,
            asks=True,
            folder=True,
        ),
    ]
