"""Show the progress of an engine build, and let Ctrl-C stop it.

The builder is one call that may take minutes, in which no signal reaches Python. So it runs in a thread, reports to a
queue, and asks after each step whether it is to continue.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from threading import Thread
from types import ModuleType
from typing import Any

from pocketzoo.core.progress import Progress

TICKS = 100  # of the bar
PATIENCE = 0.2  # seconds between two looks for Ctrl-C


def watched(trt: ModuleType, builder: Any, network: Any, config: Any, progress: Progress) -> Any:
    """The engine's bytes; None where the builder gave up.

    Raises:
        KeyboardInterrupt: Ctrl-C; the builder has ended by then.
    """
    monitor = _monitor(trt)
    config.progress_monitor = monitor
    engines: list[Any] = []

    def build() -> None:
        try:
            engines.append(builder.build_serialized_network(network, config))
        finally:
            monitor.reached.put(None)

    worker = Thread(target=build, daemon=True)
    with _chatter_on_stderr():
        worker.start()
        try:
            for _ in progress.track(_ticks(monitor.reached, worker), "building the engine", TICKS):
                pass
        except BaseException:  # Ctrl-C, or an error in what draws the bar
            monitor.canceled = True
            raise
        finally:
            worker.join()
            config.progress_monitor = None
    return engines[0] if engines else None


@contextlib.contextmanager
def _chatter_on_stderr() -> Iterator[None]:
    """The builder's own compiler prints warnings to stdout, where results go: JSON, for one."""
    sys.stdout.flush()
    try:
        stdout = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of the two is closed
        yield
        return
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def _ticks(reached: SimpleQueue[float | None], worker: Thread) -> Iterator[int]:
    """As many ticks as are done, as soon as they are."""
    shown = 0
    while True:
        try:
            share = reached.get(timeout=PATIENCE)
        except Empty:
            if worker.is_alive():
                continue
            return
        if share is None:
            return
        while shown < min(TICKS, int(share * TICKS)):
            shown += 1
            yield shown


class Phases:
    """How much of nested phases is done: a phase inside another is a step of it."""

    def __init__(self) -> None:
        self.open: dict[str, tuple[str, int, int]] = {}  # name -> parent, steps, steps done
        self.most = 0.0

    def start(self, name: str, parent: str, steps: int) -> None:
        self.open[name] = (parent, max(steps, 1), 0)

    def step(self, name: str, step: int) -> float:
        """The share done so far, 0 to 1; it never falls."""
        parent, steps, _ = self.open.get(name, ("", 1, 0))
        self.open[name] = (parent, steps, step + 1)
        self.most = max(self.most, min(1.0, sum(d / n * self._width(p) for p, n, d in self.open.values())))
        return self.most

    def finish(self, name: str) -> None:
        self.open.pop(name, None)

    def _width(self, parent: str) -> float:
        """The fraction of the whole that a phase inside ``parent`` is."""
        if parent not in self.open:
            return 1.0 if not parent else 0.0
        above, steps, _ = self.open[parent]
        return self._width(above) / steps


def _monitor(trt: ModuleType) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases, self.canceled = Phases(), False
            self.reached: SimpleQueue[float | None] = SimpleQueue()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases.start(phase_name, parent_phase or "", num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.reached.put(self.phases.step(phase_name, step))
            return not self.canceled

        def phase_finish(self, phase_name: str) -> None:
            self.phases.finish(phase_name)

    return Monitor()
