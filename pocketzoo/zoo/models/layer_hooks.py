"""Forward hooks that watch the layers of a module, and are removed afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn


@contextmanager
def before(
    model: nn.Module, names: Iterable[str], hook: Callable[[str, nn.Module, tuple[Tensor, ...]], Any]
) -> Iterator[None]:
    """While in here, ``hook(name, layer, inputs)`` is called each time one of the named layers is about to run.

    What the hook returns, a tuple or the one input, takes the place of the inputs, unless it is None.
    """
    with ExitStack() as handles:
        for name in names:
            handles.enter_context(model.get_submodule(name).register_forward_pre_hook(partial(hook, name)))
        yield


@contextmanager
def after(
    model: nn.Module, names: Iterable[str], hook: Callable[[str, nn.Module, tuple[Tensor, ...], Any], Any]
) -> Iterator[None]:
    """While in here, ``hook(name, layer, inputs, output)`` is called each time one of the named layers has run.

    What the hook returns takes the place of the output, unless it is None.
    """
    with ExitStack() as handles:
        for name in names:
            handles.enter_context(model.get_submodule(name).register_forward_hook(partial(hook, name)))
        yield
