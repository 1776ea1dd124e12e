"""How many nodes a graph has once each call of a function is replaced by the function's own nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeAlias

Callee: TypeAlias = tuple[str, str, str]  # domain, name, overload
Calls: TypeAlias = "Counter[Callee]"
MANY = 10**15  # more than that are not told apart: thirty functions that call the one before twice are 2^30 nodes


def expanded(main: Calls, functions: Mapping[Callee, Calls]) -> tuple[int, int]:
    """The nodes of a graph that calls ``main``, at most ``MANY``, and how deep functions call one another.

    Raises:
        ValueError: a function calls itself, which ONNX forbids.
    """
    sizes: dict[Callee, tuple[int, int]] = {}
    for first in functions:
        path = [first] * (first not in sizes)  # by hand: a chain of calls may be longer than Python's own stack
        open_: set[Callee] = set()
        while path:
            callee = path[-1]
            if callee in sizes:
                path.pop()
                continue
            waits = [each for each in functions[callee] if each in functions and each not in sizes]
            if waits:
                if callee in open_ or callee in waits:
                    raise ValueError(f"its function {'.'.join(callee[:2])} calls itself")
                open_.add(callee)
                path.extend(waits)
            else:
                sizes[callee] = _size(functions[callee], sizes)
                path.pop()
    return _size(main, sizes)


def _size(calls: Calls, sizes: Mapping[Callee, tuple[int, int]]) -> tuple[int, int]:
    nodes = sum(count * sizes.get(callee, (1, 0))[0] for callee, count in calls.items())
    return min(nodes, MANY), max((1 + sizes[callee][1] for callee in calls if callee in sizes), default=0)
