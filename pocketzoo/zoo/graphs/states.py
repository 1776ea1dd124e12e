"""States: outputs of a graph that are inputs of its next call. What is said of them by a signature alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pocketzoo.core.errors import BundleError
from pocketzoo.core.progress import Progress
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec

States = Mapping[str, str]  # output -> the input that it is at the next call
CALLS = "calls"  # the axis of a sequence, after that of the batch


def check_states(signature: ModelSignature, states: Mapping[str, str]) -> None:
    """Raises:
    BundleError: a state is of no output or input, two feed one input, or output and input are of different types.
    """
    if not states:
        raise BundleError(
            "the driver 'stateful' needs states, and none are given", "say which output feeds which input"
        )
    inputs = {spec.name: spec for spec in signature.inputs}
    outputs = {spec.name: spec for spec in signature.outputs}
    for name, fed in states.items():
        for side, known, which in (("output", outputs, name), ("input", inputs, fed)):
            if which not in known:
                raise BundleError(f"the graph has no {side} {which!r}", f"its {side}s: {', '.join(known)}")
        if list(states.values()).count(fed) > 1:
            raise BundleError(f"two outputs feed the input {fed!r}", "give each input one output")
        given, taken = outputs[name], inputs[fed]
        lengths = zip(given.shape, taken.shape, strict=False)
        differ = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in lengths)
        if given.dtype != taken.dtype or len(given.shape) != len(taken.shape) or differ:
            raise BundleError(
                f"the output {name!r}, {given.dtype} of {given.shape}, cannot be the input {fed!r}, "
                f"{taken.dtype} of {taken.shape}",
                "a state has one type and shape",
            )


def growing_axes(signature: ModelSignature, states: States) -> dict[str, int]:
    """State -> its axis that is longer after each call, as of a cache of keys and values: it begins with length 0.

    That is the one of any length which the output calls otherwise than the input: "past" and "total".
    """
    found = {}
    for output, fed in states.items():
        given, made = signature.input(fed), signature.output(output)
        free = [axis for axis in given.free if axis != given.batch]
        if len(free) == 1 and isinstance(made.shape[free[0]], str) and made.shape[free[0]] != given.shape[free[0]]:
            found[fed] = free[0]
    return found


def check_growing(signature: ModelSignature, states: States) -> None:
    """Raises:
    BundleError: as ``check_states``; or an input has to be as long as a state that grows, another length at each call.
    """
    check_states(signature, states)
    growing = growing_axes(signature, states)
    lengths = {output: signature.output(output).shape[growing[fed]] for output, fed in states.items() if fed in growing}
    for spec in signature.inputs:
        for axis, dim in spec.free.items():
            known = next((output for output, length in lengths.items() if length == dim), "")
            if known and axis != spec.batch and spec.name not in states.values():
                raise BundleError(
                    f"the input {spec.name!r} is as long along axis {axis} ({dim!r}) as {known!r}, longer at each call",
                    f"export it without {spec.name!r}, which the lengths of the states say",
                )


def with_states(signature: ModelSignature, states: Mapping[str, str], progress: Progress) -> ModelSignature:
    """The signature with its states; without any, those that names make evident are said, and not taken.

    Raises:
        BundleError: as ``check_states``; or an input has to be as long as a state that grows.
    """
    if not states:
        named = " ".join(f"--state {output}={given}" for output, given in evident_states(signature).items())
        if named:
            progress.say(f"by their names these may be states, which nothing else says; if they are: {named}")
        return signature
    check_growing(signature, states)
    growing = growing_axes(signature, states)
    for (axis, dim), names in _by_axis(signature, growing).items():
        progress.say(f"{', '.join(names)}: longer after each call along axis {axis} ({dim!r}), from length 0 on")
    outputs = tuple(replace(output, feeds=states.get(output.name, "")) for output in signature.outputs)
    return replace(signature, outputs=outputs)


def _by_axis(signature: ModelSignature, growing: Mapping[str, int]) -> dict[tuple[int, str | int], list[str]]:
    found: dict[tuple[int, str | int], list[str]] = {}
    for name, axis in growing.items():
        found.setdefault((axis, signature.input(name).shape[axis]), []).append(name)
    return found


def sequences_of(signature: ModelSignature, lengths: Mapping[str, int]) -> ArraysSpec:
    """How sequences become the inputs of a model with states: as arrays by name; ``lengths`` are of free axes."""
    return ArraysSpec(inputs=over_calls(signature, signature.states).inputs, lengths=lengths)


def evident_states(signature: ModelSignature) -> dict[str, str]:
    """Outputs that by name, type and shape look like states, and the inputs that they may feed: a hint, never taken."""
    found = {}
    for output in signature.outputs:
        for given in signature.inputs:
            alike = output.dtype == given.dtype and len(output.shape) == len(given.shape)
            if alike and output.name != given.name and output.name in _successors(given.name):
                found[output.name] = given.name
    return found


def _successors(name: str) -> set[str]:
    """What people call the output that is an input of this name at the next call."""
    ends = {f"{name}{end}" for end in ("N", "n", "_n", "_out", "_next", "_new", "Out", "_t1", "1")}
    starts = {f"{start}{name}" for start in ("new_", "next_", "out_", "output_")}
    swaps = {name.replace(a, b) for a, b in (("_in", "_out"), ("past", "present"), ("prev", "next"), ("old", "new"))}
    return ends | starts | swaps - {name}


def over_calls(signature: ModelSignature, states: Mapping[str, str]) -> ModelSignature:
    """The signature of a whole sequence, of that of one call."""
    fed = set(states.values())
    inputs = tuple(_stacked(spec) for spec in signature.inputs if spec.name not in fed)
    outputs = tuple(
        replace(spec, feeds="") if spec.name in states else _stacked(spec, always=True) for spec in signature.outputs
    )
    return ModelSignature(inputs=inputs, outputs=outputs)


def calls_axis(spec: TensorSpec) -> int:
    """Where calls are counted: after the samples, first where those are not."""
    return 0 if spec.batch is None else spec.batch + 1


def _stacked(spec: TensorSpec, *, always: bool = False) -> TensorSpec:
    if spec.batch is None and not always:
        return spec
    axis = calls_axis(spec)
    return replace(spec, shape=(*spec.shape[:axis], CALLS, *spec.shape[axis:]), feeds="")
