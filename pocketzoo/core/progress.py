"""The progress protocol: a function that wraps an iterable. The default is silent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """What every long function takes as ``progress``: the command line passes one that draws a bar."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Yield ``items`` one by one, showing ``label`` and how many of ``total`` are done."""
        ...

    def say(self, text: str) -> None:
        """One line about what happens now."""
        ...


class Silent:
    """Reports nothing."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        yield from items

    def say(self, text: str) -> None:
        pass


SILENT = Silent()
