"""Place plot labels next to their marks without overlaps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The area that two boxes share."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, across) * max(0.0, down)

    def inside(self, other: Box) -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )

    def grown(self, by: float) -> Box:
        return Box(self.left - by, self.top - by, self.right + by, self.bottom + by)


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of a plot with the size of the label it wants."""

    x: float
    y: float
    radius: float
    label_width: float
    label_height: float

    @property
    def box(self) -> Box:
        return Box(self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)


def place_labels(marks: Sequence[Mark], area: Box, lines: Sequence[Box] = ()) -> list[Box | None]:
    """A box for the label of each mark, the first marks first: inside ``area``, over no other label and no mark.

    ``lines`` are avoided where that is possible. None where there is no room left.
    """
    placed: list[Box | None] = []
    for mark in marks:
        taken = [box for box in placed if box is not None]
        best: tuple[float, Box] | None = None
        for far, candidate in _candidates(mark):
            if best and far >= best[0]:
                continue
            box, moved = _slid(candidate, area)
            clear = box.grown(2)
            if not box.inside(area) or any(clear.overlap(other) for other in [*taken, *(m.box for m in marks)]):
                continue
            if _crosses(mark, box, taken, marks):
                continue
            crossed = 80 * sum(box.grown(5).overlap(line) > 0 for line in lines)
            total = far + moved / 10 + crossed + 6 * (leader(mark, box) is not None)
            if best is None or total < best[0]:
                best = total, box
        placed.append(best[1] if best else None)
    return placed


def _candidates(mark: Mark) -> Iterable[tuple[float, Box]]:
    """Boxes around a mark, and what each costs: far ones more; to the right of it is what eyes expect."""
    for gap in (5.0, 14.0, 26.0, 40.0, 58.0, 80.0, 105.0):
        for step in range(24):
            angle = 2 * math.pi * step / 24
            reach = mark.radius + gap
            cx, cy = mark.x + math.cos(angle) * reach, mark.y + math.sin(angle) * reach
            # The box touches the circle of reach with the side that faces the mark.
            left = cx - mark.label_width * (1 - math.cos(angle)) / 2
            top = cy - mark.label_height * (1 - math.sin(angle)) / 2
            # Straight right, below, left or above looks tidier than askew.
            yield (
                gap + 4 * (1 - math.cos(angle)) + 4 * (step % 6 != 0),
                Box(left, top, left + mark.label_width, top + mark.label_height),
            )


def _slid(box: Box, area: Box) -> tuple[Box, float]:
    """A box moved sideways into ``area``, and how far."""
    by = max(area.left - box.left, 0.0) + min(area.right - box.right, 0.0)
    return Box(box.left + by, box.top, box.right + by, box.bottom), abs(by)


def leader(mark: Mark, box: Box) -> tuple[float, float, float, float] | None:
    """The line from a mark to a label that is not directly next to it."""
    x, y = min(max(mark.x, box.left), box.right), min(max(mark.y, box.top), box.bottom)
    distance = math.hypot(x - mark.x, y - mark.y)
    if distance < mark.radius + 9:
        return None
    ux, uy = (x - mark.x) / distance, (y - mark.y) / distance
    return mark.x + ux * (mark.radius + 1), mark.y + uy * (mark.radius + 1), x - ux * 3, y - uy * 3


def _crosses(mark: Mark, box: Box, taken: Sequence[Box], marks: Sequence[Mark]) -> bool:
    """Whether the leader would run over another label or mark."""
    line = leader(mark, box)
    if line is None:
        return False
    x0, y0, x1, y1 = line
    steps = [(x0 + (x1 - x0) * step / 9, y0 + (y1 - y0) * step / 9) for step in range(1, 9)]
    labels = any(Box(x - 1, y - 1, x + 1, y + 1).overlap(other) > 0 for x, y in steps for other in taken)
    return labels or any(math.hypot(x - m.x, y - m.y) < m.radius for x, y in steps for m in marks)
