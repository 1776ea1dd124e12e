"""int8 inside branches and bodies: each is planned and written as a graph by itself, and put back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy.typing as npt
from onnx import ModelProto

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.plans import Int8Plan
from pocketzoo.compress.quantization.bodies import Body, Calls, UnseenError, bodies_of, put
from pocketzoo.compress.quantization.skipped_layers import for_graph
from pocketzoo.core.arrays import Arrays
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.graphs.foreign.selections import unseen_nodes
from pocketzoo.zoo.graphs.fresh_names import FreshNames
from pocketzoo.zoo.graphs.index import GraphIndex
from pocketzoo.zoo.graphs.layer_precisions import placed_layers

Tensors = Mapping[str, npt.NDArray[Any]]


def plan_bodies(
    model: ModelProto,
    config: Int8Config,
    samples: Iterable[Arrays],
    plan: Callable[[ModelProto, Int8Config, Iterable[Arrays]], Int8Plan],
) -> tuple[dict[str, Int8Plan], dict[str, str]]:
    """The plan of each body that has layers in int8, by its place; and the layers that are left, with the reason."""
    plans: dict[str, Int8Plan] = {}
    left: dict[str, str] = {}
    bodies = bodies_of(model)
    unseen = unseen_nodes(GraphIndex(model)) if bodies else {}
    for body in bodies:
        layers = [layer.name for layer in placed_layers(body.model)]
        if not layers:
            continue
        if why := next((unseen[name] for name in body.node.output if name in unseen), ""):
            left |= dict.fromkeys(layers, why)
            continue
        inside = f"it is inside a node of {body.node.op_type}"
        calls = Calls(body, model, samples)
        try:
            calls.check()
            made = plan(body.model, for_graph(config, body.model), calls)
        except UnseenError as error:
            left |= dict.fromkeys(layers, f"{inside}: {error}")
            continue
        except DataError as error:  # what a body computes may be infinite where nobody reads it
            left |= dict.fromkeys(layers, f"{inside}: {error.message}")
            continue
        left |= made.left
        if made.layers or made.tables or made.bodies:
            plans[body.place] = replace(made, left={})
    return plans, left


def apply_bodies(model: ModelProto, plan: Int8Plan, write: Callable[[ModelProto, Int8Plan], ModelProto]) -> ModelProto:
    """A graph with the planned bodies as ``write`` makes them; ``model`` itself where none is planned."""
    if not plan.bodies:
        return model
    whole, fresh = ModelProto(), FreshNames.of(model)
    whole.CopyFrom(model)
    for body in bodies_of(model):
        if body.place in plan.bodies:
            put(whole, body, write(body.model, plan_of(plan, body)), fresh)
    return whole


def plan_of(plan: Int8Plan, body: Body) -> Int8Plan:
    """The plan of a body with its tensors."""
    own = {n.removeprefix(_prefix(body.place)): t for n, t in plan.tensors.items() if n.startswith(_prefix(body.place))}
    return replace(plan.bodies[body.place], tensors=own)


def with_bodies(plan: Int8Plan, bodies: Mapping[str, Int8Plan], digest: Callable[[Tensors], str]) -> Int8Plan:
    """The plan of a graph with those of its bodies."""
    if not bodies:
        return plan
    tensors = dict(plan.tensors)
    for place, body in bodies.items():
        tensors |= {f"{_prefix(place)}{name}": tensor for name, tensor in body.tensors.items()}
    plain = {place: replace(body, tensors={}) for place, body in bodies.items()}
    return replace(plan, bodies=plain, tensors=tensors, sha256=digest(tensors))


def without_bodies(plan: Int8Plan) -> Int8Plan:
    """The plan of the graph alone: its tensors were looked at with all others."""
    if not plan.bodies:
        return plan
    prefixes = tuple(map(_prefix, plan.bodies))
    own = {name: tensor for name, tensor in plan.tensors.items() if not name.startswith(prefixes)}
    return replace(plan, bodies={}, tensors=own, sha256="")


def inner_layers(plan: Int8Plan) -> list[str]:
    """The layers of a plan that are inside nodes, at any depth."""
    return [name for body in plan.bodies.values() for name in (*body.layers, *inner_layers(body))]


def _prefix(place: str) -> str:
    return f"{place}//"
