"""What a bundle reads and outputs, tensor by tensor: of the model as a whole, and of each of its graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pocketzoo.core.errors import MissingDependencyError
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.bundle_signature import bundle_signature
from pocketzoo.zoo.bundles.manifest import MODEL
from pocketzoo.zoo.bundles.measurement import runs_of
from pocketzoo.zoo.catalog.signature import Dim, ModelSignature


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFacts:
    """One input or output."""

    graph: str  # by its name; "" of the model as a whole
    role: Literal["input", "output"]
    name: str
    dtype: str
    axes: tuple[Dim, ...]  # a string names one of free length
    batch: int | None  # which of them counts samples; None: none does
    free: tuple[str, ...] = ()  # those of free length, that of the samples left out
    state: str = ""  # of an output: the input that it is at the next call; of an input: the output that it was
    sqnr: tuple[Sqnr, ...] = ()  # of an output, where it was measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Sqnr:
    """How close an output of an encoded graph is to the reference's: signal over quantization noise."""

    target: str
    precision: str
    value: float | None  # dB; None: it is equal
    key: str  # where the manifest has it
    made_samples: str = ""  # see ``MeasuredOn.made_samples``


def bundle_tensors(bundle: Bundle) -> list[TensorFacts]:
    """Inputs before outputs, the model's before those of its graphs, where it has several.

    Graphs are opened where the manifest does not have their signatures; without onnx those are left out.
    """
    graphs = bundle.graphs("") or next((bundle.graphs(target) for target in bundle.targets()), {})
    facts: list[TensorFacts] = []
    measured = _measured(bundle)
    try:
        whole = bundle.manifest.signature or (bundle_signature(bundle) if MODEL in graphs else None)
        facts += _of_signature("", whole, measured) if whole is not None else []
        if len(graphs) > 1:
            from pocketzoo.zoo.graphs.signature import signature_of

            for name, path in graphs.items():
                facts += _of_signature(name, signature_of(path), {}) if name != MODEL else []
    except (ImportError, MissingDependencyError):  # a device may lack onnx
        pass
    return facts


def _of_signature(graph: str, signature: ModelSignature, measured: dict[str, tuple[Sqnr, ...]]) -> list[TensorFacts]:
    before = {feeds: output for output, feeds in signature.states.items()}
    sides = [("input", tensor) for tensor in signature.inputs] + [("output", tensor) for tensor in signature.outputs]
    return [
        TensorFacts(
            graph=graph,
            role="input" if role == "input" else "output",
            name=tensor.name,
            dtype=tensor.dtype,
            axes=tensor.shape,
            batch=tensor.batch,
            free=tuple(name for axis, name in tensor.free.items() if axis != tensor.batch),
            state=before.get(tensor.name, "") if role == "input" else tensor.feeds,
            sqnr=measured.get(tensor.name, ()) if role == "output" else (),
        )
        for role, tensor in sides
    ]


def _measured(bundle: Bundle) -> dict[str, tuple[Sqnr, ...]]:
    """Output -> what the last run that has a target says of it; the first row of a run is its reference.

    What was measured on data counts before any samples that nobody took.
    """
    measured: dict[str, dict[str, Sqnr]] = {}
    start = 0
    for run in runs_of(bundle.manifest.measurements):
        seen = set[str]()
        for i, row in enumerate(run):
            if not i or not row.target or row.bundle != bundle.manifest.name or row.target in seen or not row.outputs:
                continue
            seen.add(row.target)
            for name, value in row.outputs.items():
                key = f"measurements.{start + i}.outputs.{name}"
                sqnr = Sqnr(
                    target=row.target,
                    precision=row.precision,
                    value=value,
                    key=key,
                    made_samples=row.made_samples,
                )
                known = measured.setdefault(name, {}).get(row.target)
                if known is None or known.made_samples or not sqnr.made_samples:
                    measured[name][row.target] = sqnr
        start += len(run)
    return {name: tuple(of_targets.values()) for name, of_targets in measured.items()}
