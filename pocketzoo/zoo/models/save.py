"""Save a module as a bundle: safetensors, ONNX graph, and counted facts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from pocketzoo.zoo.bundles.bill_of_materials import packages
from pocketzoo.zoo.bundles.bundle import Draft, graph_name, source_file_name
from pocketzoo.zoo.bundles.manifest import Manifest, ModelRef
from pocketzoo.zoo.bundles.step_record import StepRecord
from pocketzoo.zoo.catalog.head_task import NO_ANSWERS, AnswerFacts
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.catalog.processor_configs import NO_COLUMNS, DataColumns
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.processors.open_processor import describe_config, open_config
from pocketzoo.zoo.graphs.signature import signature_of
from pocketzoo.zoo.models.export_graph import onnx_from_model
from pocketzoo.zoo.models.model_costs import graph_costs, sizes_counted_at


def save_model(
    draft: Draft,
    module: nn.Module,
    ref: ModelRef,
    *,
    name: str,
    labels: tuple[str, ...],
    answers: AnswerFacts = NO_ANSWERS,
    data_columns: DataColumns = NO_COLUMNS,
    license: str,
    input_spec: Any,
    provenance: Mapping[str, Any],
    steps: tuple[StepRecord, ...] = (),
    metrics: Mapping[str, Any] | None = None,
    opset: int = 20,
    files: Mapping[str, Path] | None = None,
    processor: Processor | None = None,
    registry: Registry | None = None,
) -> None:
    """Write weights and float graph into ``draft`` and set its manifest; ``files`` are what the backbone is built from.

    ``answers`` says what its outputs mean. ``input_spec`` is the config of its processor, or what another bundle has as
    its ``processor``; the one that was opened of it is opened again if it is not given.

    Raises:
        ExportError: the module does not export, or its graph differs from it.
    """
    state = {key: value.detach().clone().contiguous() for key, value in module.state_dict().items()}
    # safetensors' own writer gives the file to its owner alone, and hides a full disk in an error type of its own.
    (draft.folder / "model.safetensors").write_bytes(save(state))
    for path, file in (files or {}).items():
        shutil.copyfile(file, draft.folder / source_file_name(path))
    graph = draft.mark(graph_name(), precision="float32")
    opened = processor or open_config(input_spec, files, registry)
    difference = onnx_from_model(module, opened, graph, opset=opset)
    layers = graph_costs([graph], opened)
    draft.manifest = Manifest(
        name=name,
        model=ref,
        processor=describe_config(input_spec, registry),
        signature=signature_of(graph),
        labels=labels,
        data_columns=data_columns,
        task=answers.task,
        tag=answers.tag,
        task_provider=answers.provider,
        decoder=answers.decoder,
        returns=answers.returns,
        license=license,
        parameters=sum(p.numel() for p in module.parameters()),
        macs=sum(layer.macs for layer in layers),
        counted_at=sizes_counted_at(opened),
        provenance={**provenance, "export_difference": difference, "packages": packages()},
        steps=steps,
        metrics=dict(metrics or {}),
        layers={"float": tuple(layers)},
    )
