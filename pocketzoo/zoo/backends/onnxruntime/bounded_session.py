"""Sessions that end: a loop of 2^60 rounds is a few bytes of a graph, and onnxruntime would go through them all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from pocketzoo.core.errors import DataError, PocketzooError, TooLargeError
from pocketzoo.core.optional import require
from pocketzoo.core.untrusted.limits import IMPORT_BYTES, IMPORT_SECONDS, RUN_SECONDS, Limit
from pocketzoo.zoo.backends.onnxruntime.run_errors import explained

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding

TICK = 0.1  # seconds between two looks at the clock
AT_ONCE = 8  # samples that a run of ``RUN_SECONDS`` may have; of more, the time is in proportion
ARENA_IS_FULL = "BFCArena"  # what errors of onnxruntime name where its memory is bounded
FATAL = 4  # log severity: what onnxruntime prints besides, in colors and with a graph's names, is in what it raises


class ArenaFullError(TooLargeError):
    """A run on a foreign graph takes more memory than it may; one on less may not."""


class TimeLeft:
    """The seconds that all runs on a foreign graph may take together, while it is imported."""

    def __init__(self, whose: str) -> None:
        self.whose, self.left = whose, float(IMPORT_SECONDS.value)


class BoundedSession:
    """A session of onnxruntime whose runs stop when their time is over.

    Each run has ``RUN_SECONDS``, or what is left of ``time_left``. It stops before the next node, or the next round of
    a loop: a single node always ends.
    """

    def __init__(self, session: InferenceSession, whose: str, time_left: TimeLeft | None = None) -> None:
        self.session, self.whose, self.time_left = session, whose, time_left
        self._options = require("onnxruntime").RunOptions
        self._seconds = float(RUN_SECONDS.value)

    def run(self, outputs: Sequence[str] | None, feed: Mapping[str, Any]) -> Any:
        """What the session's own does.

        Raises:
            TooLargeError: the time is over.
            ArenaFullError: of a foreign graph while it is imported, the memory is.
            DataError: the graph does not take these arrays; not while it is imported, when no user gave them.
            Exception: onnxruntime's own.
        """
        samples = max([x.shape[0] for x in feed.values() if getattr(x, "ndim", 0)], default=1)
        try:
            return self._bounded(self.session.run, samples, None if outputs is None else list(outputs), dict(feed))
        except PocketzooError:
            raise
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            if self.time_left is None and isinstance(known := explained(error, feed), DataError):
                raise known from error
            raise

    def run_with_iobinding(self, binding: IOBinding, samples: int) -> None:
        """What the session's own does; as ``run``."""
        self._bounded(self.session.run_with_iobinding, samples, binding)

    def _bounded(self, function: Callable[..., Any], samples: int, *arguments: Any) -> Any:
        options, left = self._options(), self.time_left
        options.log_severity_level = FATAL
        seconds = self._seconds * max(1.0, samples / AT_ONCE) if left is None else left.left
        began = time.monotonic()
        WATCH.add(options, began + seconds)
        try:
            return function(*arguments, options)
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            if options.terminate:
                raise too_long(self.whose, RUN_SECONDS if left is None else IMPORT_SECONDS, seconds) from error
            if left is not None and ARENA_IS_FULL in str(error):
                refusal = IMPORT_BYTES.refusal(f"{self.whose} takes more memory than foreign graphs may")
                raise ArenaFullError(refusal.message, refusal.hint) from error
            raise
        finally:
            WATCH.remove(options)
            if left is not None:
                left.left = max(0.0, left.left - (time.monotonic() - began))

    def get_inputs(self) -> Any:
        """Names, shapes and types of its inputs."""
        return self.session.get_inputs()

    def get_outputs(self) -> Any:
        """Names, shapes and types of its outputs."""
        return self.session.get_outputs()

    def get_providers(self) -> list[str]:
        """The providers that it runs on."""
        providers: list[str] = self.session.get_providers()
        return providers

    def properties(self) -> dict[str, str]:
        """What its file says of itself."""
        found: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        return found

    def io_binding(self) -> IOBinding:
        """Inputs and outputs that are bound to memory, for ``run_with_iobinding``."""
        return self.session.io_binding()

    def end_profiling(self) -> str:
        """The file that the times of nodes are in."""
        path: str = self.session.end_profiling()
        return path


def too_long(whose: str, limit: Limit, seconds: float) -> Exception:
    """The error of what took longer than a limit."""
    seconds = limit.value if limit is IMPORT_SECONDS else seconds  # of the import, what was left is nobody's number
    return limit.refusal(f"{whose} runs longer than {seconds:,.0f} second{'s' * (seconds != 1)}")


class Watch:
    """One thread that looks at the clock for all runs: a timer for each would cost more than a small model."""

    def __init__(self) -> None:
        self._ends: dict[int, tuple[float, Any]] = {}
        self._there = Event()
        self._thread: Thread | None = None

    def add(self, options: Any, end: float) -> None:
        """Set ``terminate`` of a run's options if they are still here at ``end``, on the monotonic clock."""
        self._ends[id(options)] = end, options
        if self._thread is None or not self._thread.is_alive():
            self._thread = Thread(target=self._look, name="pocketzoo-watch", daemon=True)
            self._thread.start()
        if not self._there.is_set():
            self._there.set()

    def remove(self, options: Any) -> None:
        """The run is over."""
        self._ends.pop(id(options), None)

    def _look(self) -> None:
        while True:
            if not self._ends:
                self._there.clear()
                if not self._ends:  # or one came in between, and set it before it was cleared
                    self._there.wait()
            now = time.monotonic()
            for key, (end, options) in list(self._ends.items()):
                if now >= end and self._ends.pop(key, None) is not None:
                    options.terminate = True
            time.sleep(TICK)


WATCH = Watch()


def _after_fork() -> None:
    """A fork has none of its parent's threads, and may have copied a lock that one of them held."""
    WATCH.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
