"""Which registered targets this machine can build for and run."""

from __future__ import annotations

from dataclasses import dataclass

from pocketzoo.core.errors import PocketzooError, in_a_line
from pocketzoo.zoo.backends.open_backend import backend_of, open_backend
from pocketzoo.zoo.catalog.backend import Support
from pocketzoo.zoo.catalog.registry import Registry, default_registry
from pocketzoo.zoo.catalog.specs import TargetSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """One target, and what this machine can do for it."""

    target: TargetSpec
    backend: str  # that builds for it and runs it; "" where it names none
    builds: bool  # what the target runs can be made here
    runs: bool
    why: str = ""  # not
    fix: str = ""


def list_targets(registry: Registry | None = None) -> list[Here]:
    """All targets in the order of their names. Each is asked of its back end, and nothing is run."""
    registry = registry or default_registry()
    return [here(entry.spec, registry) for entry in registry.entries("target").values()]


def here(target: TargetSpec, registry: Registry | None = None) -> Here:
    """What this machine can do for a target; where its back end fails, that is the reason."""
    name = target.backend
    try:
        spec, target = backend_of(target, registry or default_registry())
        name = target.backend
        support = _no_backend(target) if spec is None else open_backend(spec).support(target)
    except PocketzooError as error:
        support = Support(builds=False, runs=False, why=error.message, fix=error.hint)
    except (Exception, SystemExit) as error:  # a plugin's back end may fail in any way; the other targets go on
        support = Support(
            builds=False,
            runs=False,
            why=f"the back end {name!r} fails: {in_a_line(error)}",
            fix="pocketzoo doctor",
        )
    return Here(target=target, backend=name, builds=support.builds, runs=support.runs, why=support.why, fix=support.fix)


def _no_backend(target: TargetSpec) -> Support:
    """Graphs can be written for any target; who runs them is not known."""
    if target.former:
        fields = ", ".join(f"{name} {value!r}" for name, value in target.former.items())
        return Support(builds=True, runs=False, why=f"no back end here knows {fields}", fix="install one that does")
    return Support(
        builds=True, runs=False, why="it names no back end", fix="graphs for it are written by: export --to onnx"
    )
