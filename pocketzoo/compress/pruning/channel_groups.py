"""Groups of channels that must be removed together, found by tracing the exported graph.

Each channel of each tensor gets an integer; a union-find joins the integers that an operator ties together (the two
sides of an addition, a depthwise convolution's input and output). What an operator we do not know touches is frozen.
The idea of a dependency graph for any architecture is DepGraph's (Fang et al. 2023, arXiv:2301.12900).
"""

from __future__ import annotations

import warnings

import torch
from torch import nn

from pocketzoo.compress.pruning.channel_tracer import ChannelTracer
from pocketzoo.compress.pruning.channels import Channels
from pocketzoo.compress.statistics.calibration_batches import Inputs
from pocketzoo.core.errors import UnsupportedLayerError, message_of


def find_channels(model: nn.Module, x: Inputs) -> Channels:
    """Follow the channels of ``model`` for its inputs ``x``, each of shape (B, *size), B >= 2.

    Raises:
        UnsupportedLayerError: torch.export cannot trace the model.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # Hooks such as old weight norms write an attribute at each run; nothing here reads it.
            warnings.filterwarnings("ignore", message=".* assigned during export")
            program = torch.export.export(model.eval(), x)
    except (Exception, SystemExit) as error:  # tracing runs the model's own code, which may fail in any way
        reason = next((line for line in message_of(error).splitlines() if line.strip()), type(error).__name__)
        raise UnsupportedLayerError(
            f"cannot trace this model: {reason}", "leave out prune; low-rank and int8 need no trace"
        ) from error
    tracer = ChannelTracer()
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    first = _first_names(model)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            tracer.parameters[node] = first.get(names[node.name], names[node.name])
        elif node.op == "call_function":
            tracer.visit(node)
        elif node.op == "output":
            tracer.freeze_inputs(node)
    return tracer.result()


def _first_names(model: nn.Module) -> dict[str, str]:
    """All names of parameters and buffers that have several -> the one that ``named_modules`` gives."""
    names: dict[int, str] = {}
    everything = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    return {name: names.setdefault(id(tensor), name) for name, tensor in everything}
