"""Choose the fastest way to run a model on this machine: measured, checked, and cached."""

from __future__ import annotations

import contextlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.caching import caching
from pocketzoo.core.errors import PocketzooError, in_a_line, message_of
from pocketzoo.core.files import home, replacing_file
from pocketzoo.core.keys import cache_key
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.reading.documents import read_json
from pocketzoo.zoo.backends.timing import CLOCK, Clock, time_in_turn
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.tasks.agreement import sqnr

AGREES = 20.0  # dB, 10 log10(|reference|^2 / |reference - out|^2): an error of a hundredth of the power, or less
SECONDS = 0.2  # each way is timed for
MEMORY = "providers.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The way that was taken, and what the others did."""

    way: str  # "cpu", "cuda", "engine for tensorrt-rtx", ...
    milliseconds: Mapping[str, float] = field(default_factory=dict)  # way -> median of a sample; empty: no choice
    left_out: Mapping[str, str] = field(default_factory=dict)  # way -> why: it does not start, or answers otherwise

    def __str__(self) -> str:
        if not self.milliseconds:
            return self.way
        others = [f"{way} {ms:.2f} ms" for way, ms in self.milliseconds.items() if way != self.way]
        others += [f"{way} skipped: {why}" for way, why in self.left_out.items()]
        alternatives = "; ".join(others) or "no other runtime works"
        return f"{self.way}, {self.milliseconds[self.way]:.2f} ms a sample ({alternatives})"


def choose(
    ways: Mapping[str, Callable[[], Runner]],
    x: Arrays,
    *,
    seconds: float = SECONDS,
    clock: Clock = CLOCK,
    progress: Progress = SILENT,
) -> Choice:
    """Time every way on the batch ``x``, in turn, and take the fastest of those that agree with the first of them.

    Raises:
        PocketzooError: the first, which the others are held against, does not run.
    """
    reference = next(iter(ways))
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        runners: dict[str, Runner] = {}
        first_outputs: Arrays | None = None
        for way, start in ways.items():
            progress.say(f"trying {way}")
            try:
                runner = start()
                stack.callback(runner.close)
                out = runner.infer(x)
            except (Exception, SystemExit) as error:  # of a plugin's runner it may be any
                if way == reference:
                    raise
                known = isinstance(error, PocketzooError)
                left_out[way] = message_of(error) if known else in_a_line(error)
                continue
            first_outputs = out if first_outputs is None else first_outputs
            if (ratio := min(sqnr(out[name], value) for name, value in first_outputs.items())) < AGREES:
                left_out[way] = f"its outputs differ ({ratio:.0f} dB)"
                continue
            runners[way] = runner
        times = time_in_turn([partial(runner.infer, x) for runner in runners.values()], seconds, clock=clock)
    medians = {way: float(np.median(spent.wall)) for way, spent in zip(runners, times, strict=True)}
    return Choice(way=min(medians, key=lambda way: medians[way]), milliseconds=medians, left_out=left_out)


def remembered(key: str, ways: Mapping[str, object]) -> Choice | None:
    """What was chosen before for the same key, if it is still one of the ``ways``."""
    choice = _read().get(key) if caching() else None
    try:
        remembered_choice = Choice(**choice) if choice else None
    except TypeError:
        return None  # written by another version
    return remembered_choice if remembered_choice and remembered_choice.way in ways else None


def remember(key: str, choice: Choice) -> None:
    """Keep a choice below ``home()``; where that cannot be written, it is measured again next time."""
    with contextlib.suppress(PocketzooError), replacing_file(home() / MEMORY) as temporary:
        temporary.write_text(json.dumps({**_read(), key: asdict(choice)}, indent=1), "utf8")


def key_of(digest: str, ways: Iterable[str], threads: int) -> str:
    """What a choice depends on: the model's digest, the ways with their versions, the machine and the threads."""
    machine = (platform.node(), platform.machine())
    return cache_key("runtime", model=digest, ways=tuple(ways), threads=threads, machine=machine)[:32]


def _read() -> dict[str, Any]:
    path: Path = home() / MEMORY
    try:
        choices = read_json(path)
    except (OSError, ValueError):
        return {}
    return choices if isinstance(choices, dict) else {}
