"""Multiply-accumulates of a module, counted while it runs: those that its graph has."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary


@dataclass(frozen=True, slots=True)
class ModuleMacs:
    """What one run multiplies: in all, and by each parameter that is a factor as it is, or transposed."""

    total: int
    by_parameter: Counter[str]


def module_macs(module: nn.Module, inputs: Sequence[Tensor]) -> ModuleMacs:
    """Run a module in eval mode on one batch, and count as ``zoo.graphs.operator_macs`` does on its graph."""
    was_training = module.training
    count = _Count(module)
    try:
        with torch.no_grad(), _plain_kernels(), count:
            module.eval()(*inputs)
    finally:
        module.train(was_training)
    return ModuleMacs(count.total, count.by_parameter)


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Without those that compute a whole layer at once, of which nothing inside is seen."""
    fast = torch.backends.mha.get_fastpath_enabled()
    onednn = torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(value=False)
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(onednn)
        torch.backends.mha.set_fastpath_enabled(value=fast)


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total, self.by_parameter = 0, Counter[str]()
        stored = [*module.parameters(), *module.buffers()]
        self.fixed = WeakTensorKeyDictionary([(each, True) for each in stored])  # and what is computed of them alone
        self.parameters = {p.untyped_storage().data_ptr(): (name, p) for name, p in module.named_parameters()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        operands = [each for each in tree_leaves((args, kwargs or {})) if isinstance(each, Tensor)]
        if operands and all(each in self.fixed for each in operands):  # a graph has it as a constant
            self.fixed.update((each, True) for each in tree_leaves(out) if isinstance(each, Tensor))
            return out
        formula = _FORMULAS.get(func.overloadpacket._qualified_op_name.rpartition("::")[2])
        if formula is not None:
            macs, factors = formula(args, out)
            self.total += macs
            for factor in factors:
                name, parameter = self.parameters.get(factor.untyped_storage().data_ptr(), ("", None))
                if parameter is not None and parameter.numel() == factor.numel():
                    self.by_parameter[name] += macs
                    break
        return out


Formula = Callable[[tuple[Any, ...], Any], tuple[int, Sequence[Tensor]]]


def _product(place: int) -> Formula:
    def formula(args: tuple[Any, ...], out: Any) -> tuple[int, Sequence[Tensor]]:
        a, b = args[place], args[place + 1]
        return out.numel() * a.shape[-1], (b, a)

    return formula


def _sum_of_products(args: tuple[Any, ...], out: Any) -> tuple[int, Sequence[Tensor]]:
    a, b = args[1], args[2]
    return a.shape[0] * out.numel() * a.shape[-1], (b, a)


def _convolution(args: tuple[Any, ...], out: Any) -> tuple[int, Sequence[Tensor]]:
    x, weight = args[0], args[1]
    transposed = len(args) > 6 and args[6]
    return (x if transposed else out).numel() * math.prod(weight.shape[1:]), (weight,)


def _attention(args: tuple[Any, ...], out: Any) -> tuple[int, Sequence[Tensor]]:
    query, key, value = args[:3]
    return math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1]), ()


def _bilinear(args: tuple[Any, ...], out: Any) -> tuple[int, Sequence[Tensor]]:
    """x1 W, of all samples and outputs, and then by x2: as it is exported."""
    x, weight, y = args[:3]
    return x.shape[0] * weight.numel() + out.numel() * y.shape[-1], ()


_FORMULAS: dict[str, Formula] = {
    **dict.fromkeys(["mm", "bmm", "mv", "dot", "vdot", "_int_mm"], _product(0)),
    **dict.fromkeys(["addmm", "baddbmm", "addmv", "_addmm_activation"], _product(1)),
    "_trilinear": _bilinear,
    "addbmm": _sum_of_products,
    **dict.fromkeys(["convolution", "_convolution", "convolution_overrideable"], _convolution),
    **dict.fromkeys(
        [
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_fused_attention_overrideable",
        ],
        _attention,
    ),
}
