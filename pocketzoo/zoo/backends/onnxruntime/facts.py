"""What onnxruntime knows of a target besides what every target says. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxruntimeFacts:
    """Facts of a target whose back end is onnxruntime."""

    provider: str = "CPUExecutionProvider"  # onnxruntime's own name of what runs its graphs
    triton_accelerators: tuple[str, ...] = ()  # what the Triton server calls it, where it is one for CPUs


def former_facts(fields: Mapping[str, Any]) -> OnnxruntimeFacts | None:
    """Facts of the fields of the previous release; None where they are another back end's."""
    if "engine" in fields or "provider" not in fields:
        return None
    return OnnxruntimeFacts(provider=fields["provider"])
