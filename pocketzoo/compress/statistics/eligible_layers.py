"""Which layers of a module a step may change, and the reasons why others stay unchanged.

A step that changes a weight must know everything that is computed from it. So a layer has to multiply what it reads by
a parameter of its own and do nothing else, and nobody else may read that parameter: weight norm, standardized
convolutions, tied weights and code that reads the weights of its layers (as attention does) are found by what they do.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode

from pocketzoo.compress.statistics.calibration_batches import Inputs

Layer = nn.Conv2d | nn.Linear
KINDS = (nn.Conv2d, nn.Linear)  # that every step has what it needs for: statistics of inputs, saliency, refitting
OTHERS = (
    nn.Conv1d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Bilinear, nn.RNNBase,
    nn.RNNCellBase, nn.MultiheadAttention, nn.Embedding, nn.EmbeddingBag,
)  # fmt: skip
PLACES = 4  # of the output of a layer that is looked at while it runs, on each axis


def weighted_layers(model: nn.Module) -> dict[str, Layer]:
    """Convolutions and linear layers by name that, looked at alone, multiply by a parameter of their own."""
    left = _alone(model)
    return {name: m for name, m in model.named_modules() if isinstance(m, KINDS) and name not in left}


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """All that a step changes or says why not: layers with weights, and modules with a matrix of their own."""
    inside = tuple(f"{name}." for name, m in model.named_modules() if is_parametrized(m))
    return {
        name: m
        for name, m in model.named_modules()
        if isinstance(m, (*KINDS, *OTHERS))
        or (name and not name.startswith(inside) and any(_is_matrix(p) for p in m.parameters(recurse=False)))
    }


def _is_matrix(parameter: Tensor) -> bool:
    return sum(size > 1 for size in parameter.shape) > 1


def left_alone(
    model: nn.Module, x: Inputs | None, *, replaced: bool = False, unfit: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The layers that are not to be changed, with the reason.

    ``x``: what the model is run on, to see who reads whose weights; None where there are no samples. ``replaced``: the
    layers are to become modules of another class, so that nobody may ask them for anything that only theirs has.
    ``unfit``: for a step that can change a Conv1d too, those that it cannot, as ``lines`` gives them.
    """
    left = _alone(model, unfit)
    aliases = _aliases(model) if replaced else {}
    names = [n for n, m in model.named_modules() if isinstance(m, KINDS) and n not in left]
    left |= {n: f"it is the same module as {aliases[n]}" for n in names if n in aliases}
    if x is not None:
        left |= {n: "the code around it reads its weight" for n in _used_around(model, x, names) if n not in left}
    if x is not None and replaced:
        asked = _asked_around(model, x, names)
        left |= {n: f"the code around it reads its {what}" for n, what in asked.items() if n not in left}
    order = [name for name, _ in model.named_modules()]
    return dict(sorted(left.items(), key=lambda item: order.index(item[0])))


def lines(model: nn.Module, x: Inputs) -> tuple[list[str], dict[str, str]]:
    """The Conv1d that may become modules of another class; and the others, with the reason.

    They are plain, padded with zeros, and asked by nobody for more than what they compute.
    """
    owners, aliases = _owners(model), _aliases(model)
    unfit: dict[str, str] = {}
    names = []
    for name, m in model.named_modules():
        if not isinstance(m, nn.Conv1d):
            continue
        if reason := _changed(m):
            unfit[name] = reason
        elif type(m) is not nn.Conv1d or "forward" in vars(m):
            unfit[name] = "it has code of its own"
        elif name in aliases:
            unfit[name] = f"it is the same module as {aliases[name]}"
        elif not name:
            unfit[name] = "it is the whole model"
        elif m.padding_mode != "zeros":
            unfit[name] = f"it pads in the mode {m.padding_mode!r}"
        elif others := _sharing(model, m, owners):
            unfit[name] = f"it shares parameters with {others[0]}"
        else:
            names.append(name)
    if names:
        unfit |= dict.fromkeys(_used_around(model, x, names), "the code around it reads its weight")
        asked = _asked_around(model, x, names)
        unfit |= {n: f"the code around it reads its {what}" for n, what in asked.items() if n not in unfit}
    return [name for name in names if name not in unfit], unfit


def shared_parameters(model: nn.Module) -> set[str]:
    """All names of parameters that more than one module has."""
    return {name for names in _owners(model).values() if len(names) > 1 for name in names}


def copied(model: nn.Module) -> nn.Module:
    """A copy in eval mode. Weights that a hook computed at the last run, which torch refuses to copy, are detached."""
    computed = [
        value
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    ]
    memo: dict[int, Any] = {id(value): value.detach().clone() for value in computed}
    return copy.deepcopy(model, memo).eval()


# -- a layer, looked at alone


def _alone(model: nn.Module, unfit: Mapping[str, str] | None = None) -> dict[str, str]:
    owners = _owners(model)
    supported = KINDS if unfit is None else (nn.Conv1d, *KINDS)
    first, last = ", ".join(kind.__name__ for kind in supported[:-1]), supported[-1].__name__
    reasons = {}
    for name, module in layers_of(model).items():
        if not isinstance(module, supported):
            reasons[name] = f"{_kind(module)}: only {first} and {last} are supported"
        elif not isinstance(module, KINDS):
            reasons |= {name: unfit[name]} if unfit and name in unfit else {}
        elif reason := _not_plain(module):
            reasons[name] = reason
        elif others := _sharing(model, module, owners):
            reasons[name] = f"it shares parameters with {others[0]}"
    return reasons


def _sharing(model: nn.Module, module: nn.Module, owners: Mapping[int, list[str]]) -> list[str]:
    """The other modules that have a parameter of this one."""
    others = [n.rpartition(".")[0] for p in module._parameters.values() if p is not None for n in owners[id(p)]]
    return [name or "the model" for name in others if model.get_submodule(name) is not module]


def _kind(module: nn.Module) -> str:
    kind = next((kind for kind in (*KINDS, *OTHERS) if isinstance(module, kind)), type(module))
    name = (type(module) if kind in (nn.RNNBase, nn.RNNCellBase) else kind).__name__
    return f"an {name}" if name[:2] in ("LS", "RN") or name[0] in "AEIOU" else f"a {name}"


def _owners(model: nn.Module) -> dict[int, list[str]]:
    """Parameter, by its id -> its names, one for each module that has it."""
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(f"{path}.{name}".lstrip("."))
    return owners


def _not_plain(layer: Layer) -> str:
    """Why a layer does not give what its class gives for the weight it has; "" where it does."""
    if reason := _changed(layer):
        return reason
    base = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear
    own = [getattr(type(layer), name) for name in ("forward", "__call__", "_conv_forward") if hasattr(base, name)]
    plain = [getattr(base, name) for name in ("forward", "__call__", "_conv_forward") if hasattr(base, name)]
    if (own != plain or "forward" in vars(layer)) and not _multiplies(layer):
        return "its class overrides how the weight is used"
    return ""


def _changed(layer: nn.Module) -> str:
    """What a layer has, besides its class, that makes its outputs others than of the weight it has."""
    weight: Tensor | None = layer._parameters.get("weight")
    if weight is None or getattr(layer, "weight", None) is not weight or is_parametrized(layer):
        return "its weight is computed"
    return "a hook changes its inputs or outputs" if layer._forward_pre_hooks or layer._forward_hooks else ""


def _multiplies(layer: Layer) -> bool:
    """Whether a layer with code of its own pads at most, and then multiplies by its weight as its class would."""
    layer = copy.deepcopy(layer).eval()
    if isinstance(layer, nn.Conv2d):
        extent = [(k - 1) * d + 1 for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
        sizes = [e + (PLACES - 1) * s for e, s in zip(extent, layer.stride, strict=True)]
        x = torch.zeros(2, layer.in_channels, *sizes, dtype=layer.weight.dtype)
    else:
        x = torch.zeros(2, layer.in_features, dtype=layer.weight.dtype)
    calls = _Calls()
    try:
        with torch.no_grad(), calls:
            out = layer(x)
    except (Exception, SystemExit):  # the layer's own code, on what it was perhaps not made for
        return False
    read = x
    for function, args, kwargs, result in calls.recorded:
        if result is read:  # a cast to the type it has, and the like
            continue
        if function is F.pad and args[0] is read and _pads_zeros(args, kwargs):
            read = result
            continue
        return out is result and _is_product(layer, function, read, args, kwargs)
    return False


def _pads_zeros(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    mode = args[2] if len(args) > 2 else kwargs.get("mode", "constant")
    value = args[3] if len(args) > 3 else kwargs.get("value")
    return mode == "constant" and not value


def _is_product(layer: Layer, function: Any, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    bound = {**dict(zip(names, args, strict=False)), **kwargs}
    operands = bound.get("input") is x and bound.get("weight") is layer.weight and bound.get("bias") is layer.bias
    if isinstance(layer, nn.Linear):
        return function is F.linear and operands
    same = (
        _pair(bound.get("stride", 1)) == _pair(layer.stride)  # some networks state theirs as a list
        and _pair(bound.get("dilation", 1)) == _pair(layer.dilation)
        and bound.get("groups", 1) == layer.groups
    )
    return function in (F.conv2d, torch.conv2d) and operands and same


def _pair(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


class _Calls(TorchFunctionMode):
    """Notes what gives tensors: function, arguments, and what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if _tensors(out):
            self.recorded.append((func, args, kwargs or {}, out))
        return out


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in arguments or results, in lists and mappings too."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for each in value for t in _tensors(each)] if isinstance(value, (list, tuple)) else []


# -- layers among others, while the model runs


def _aliases(model: nn.Module) -> dict[str, str]:
    """Layers that the model has under more than one name -> another of them."""
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    return {each[0]: each[1] for each in names.values() if len(each) > 1}


class _Uses(_Calls):
    """Notes which of some layers have a parameter from which something is computed while another module runs."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.owners = {id(p): layer for layer in layers for p in layer.parameters(recurse=False)}
        self.running: list[nn.Module] = []
        self.used: set[int] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors([args, kwargs or {}]) if _tensors(out) else ():
            owner = self.owners.get(id(tensor))
            if owner is not None and (not self.running or self.running[-1] is not owner):
                self.used.add(id(owner))
        return out


@contextmanager
def _following(uses: _Uses) -> Iterator[None]:
    """Hooks on all modules, since some code asks its layers whether they have hooks and takes another way then."""

    def enter(module: nn.Module, inputs: Any) -> None:
        uses.running.append(module)

    def leave(module: nn.Module, inputs: Any, out: Any) -> None:
        uses.running.pop()

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _used_around(model: nn.Module, x: Inputs, names: Iterable[str]) -> list[str]:
    """Those of the named layers whose parameters take part in what other modules compute."""
    layers = {name: model.get_submodule(name) for name in names}
    uses = _Uses(layers.values())
    with torch.no_grad(), _following(uses), uses:
        model(*x)
    return [name for name, layer in layers.items() if id(layer) in uses.used]


def _asked_around(model: nn.Module, x: Inputs, names: Iterable[str]) -> dict[str, str]:
    """Those of the named layers that other code asks for what only layers have -> what it asks for first."""
    twin, common = copied(model), nn.Sequential()
    asked: dict[str, str] = {}

    def watched(name: str, kind: type[nn.Module]) -> type[nn.Module]:
        def get(layer: nn.Module, attribute: str) -> Any:
            asker = sys._getframe(1).f_locals.get("self")
            if asker is not layer and not attribute.startswith("_") and not hasattr(common, attribute):
                asked.setdefault(name, attribute)
            return kind.__getattribute__(layer, attribute)

        def missing(layer: nn.Module, attribute: str) -> Any:  # parameters are found here
            return kind.__getattr__(layer, attribute)

        return type(kind.__name__, (kind,), {"__getattribute__": get, "__getattr__": missing})

    for name in names:
        layer = twin.get_submodule(name)
        layer.__class__ = watched(name, type(layer))
    with torch.no_grad():
        twin(*x)
    return asked
