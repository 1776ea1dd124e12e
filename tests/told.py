"""A progress that remembers what it was told."""

from __future__ import annotations


class Told:
    """Passes items on, and keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def track(self, items, label, total=None):
        yield from items

    def say(self, text: str) -> None:
        self.said.append(text)
