"""A machine whose clock is simulated: what runs takes is known, and so is what others add to it."""

from __future__ import annotations

from collections.abc import Callable

from pocketzoo.zoo.backends.timing import Clock


class Machine:
    """Time passes only while something runs.

    ``noise`` tells of a moment how many times as long work takes, and how many seconds others hold the thread up.
    """

    def __init__(self, noise: Callable[[float], tuple[float, float]] = lambda now: (1.0, 0.0)) -> None:
        self.now, self.worked, self.noise = 0.0, 0.0, noise
        self.clock = Clock(wall=lambda: self.now, cpu=lambda: self.worked)

    def work(self, seconds: float) -> None:
        times, waited = self.noise(self.now)
        self.worked += seconds * times
        self.now += seconds * times + waited

    def run(self, seconds: float, also: Callable[[], object] = lambda: None) -> Callable[[], None]:
        """Something that takes ``seconds``, and does something else that takes none."""

        def run() -> None:
            also()
            self.work(seconds)

        return run
