"""Run several forward passes in lockstep, stopping each at every layer, so that one pass serves all layers.

Refitting layer after layer, each on the inputs that the layers before it now give, would take a forward pass a layer.
Here every pass runs in a thread of its own and waits before a named layer until all have come; then the layer is
refitted once, and all go on. Memory is that of the activations in flight, so callers bound the number of samples.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from pocketzoo.compress.statistics.calibration_batches import Inputs
from pocketzoo.compress.statistics.second_moments import POSITIONS, rows
from pocketzoo.core.malloc_trim import return_memory, share_arenas
from pocketzoo.zoo.models.layer_hooks import before

Visit = Callable[[str, list[Tensor]], None]


class _LastVisited(Exception):  # noqa: N818 - nothing is wrong
    """The last layer of interest was visited."""


def walk(
    runs: Sequence[tuple[nn.Module, Inputs]],
    names: Iterable[str],
    visit: Visit,
    *,
    windows: Mapping[str, nn.Module] | None = None,
    hold: Iterable[str] = (),
    held: Sequence[dict[str, Tensor]] = (),
    until: str = "",
    limits: Mapping[str, int] | None = None,
) -> None:
    """Run each (model, inputs) and call ``visit(name, inputs)`` before each named layer.

    ``inputs`` holds, run by run, the rows (N, I) that the layer reads, the same positions of each, and as many as
    ``limits`` says for a layer at most. The models have the same layers, called in the same order; ``windows``
    gives, by name, the layer whose inputs are read where another module stands in its place. An error in
    one run ends all and is raised. What the modules in ``hold`` read is put into ``held``, one for each run, whole and
    under the module's name. After the layer ``until`` all runs end.
    """
    share_arenas()
    caught: list[Tensor] = [torch.empty(0)] * len(runs)
    current = [""]

    def all_here() -> None:
        return_memory()
        visit(current[0], list(caught))

    barrier = threading.Barrier(len(runs), action=all_here)
    models = {id(model): model for model, _ in runs}
    place = threading.local()
    computing = threading.Semaphore(1)  # torch has threads of its own; the rest wait where they hold least memory

    def stop(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        caught[place.run] = rows((windows or {}).get(name, layer), inputs[0], (limits or {}).get(name, POSITIONS))
        current[0] = name
        computing.release()
        try:
            barrier.wait()
        finally:
            computing.acquire()
        if name == until:
            raise _LastVisited

    def keep(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        held[place.run][name] = inputs[0]

    def run(i: int) -> None:
        place.run = i
        try:
            with computing, torch.no_grad():  # no_grad is a thread's own
                runs[i][0](*runs[i][1])
        except _LastVisited:
            pass
        except BaseException:
            barrier.abort()  # or the others would wait for ever
            raise

    with ExitStack() as hooks, ThreadPoolExecutor(len(runs)) as pool:
        for model in models.values():
            hooks.enter_context(before(model, names, stop))
            hooks.enter_context(before(model, hold, keep))
        futures = [pool.submit(run, i) for i in range(len(runs))]
        errors = [error for f in futures if (error := f.exception()) is not None]
    for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error  # the first that is not merely the echo of another
