"""How much there may be of what comes from elsewhere: the one table of limits, each with the variable that raises it.

They are asked before a library is given anything, since what follows takes memory and time that nobody gets back. All
are far above what models and images in use have.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pocketzoo.core.errors import RecipeError, TooLargeError

PREFIX = "POCKETZOO_MAX_"


@dataclass(frozen=True, slots=True)
class Limit:
    """A number that foreign input must not exceed, unless its variable says another."""

    name: str
    default: int
    what: str  # it counts, as documents say it

    @property
    def variable(self) -> str:
        """The environment variable that raises it, or lowers it."""
        return PREFIX + self.name.upper().replace("-", "_")

    @property
    def value(self) -> int:
        """The limit that holds now.

        Raises:
            RecipeError: the variable is not a whole number from 1 on.
        """
        text = os.environ.get(self.variable, "").strip()
        if not text:
            return self.default
        if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text)):
            raise RecipeError(f"{self.variable} cannot be {text[:40]!r}", "give a whole number, 1 or more")
        return int(text)

    def check(self, count: float, whose: str, unit: str = "") -> None:
        """Refuse more than the limit of what ``whose`` has; ``unit`` is what is counted, where not its name.

        Raises:
            TooLargeError: ``count`` is above it. The hint names the variable that raises it.
            RecipeError: the variable is not a number.
        """
        if count > (most := self.value):
            raise self.refusal(f"{whose} has {_written(count)} {unit or self.name}, more than {_written(most)}")

    def refusal(self, message: str) -> TooLargeError:
        """An error that says how to raise this limit."""
        return TooLargeError(message, f"if you trust it, set {self.variable} higher")


NODES = Limit("nodes", 500_000, "nodes of a graph, each call of a function replaced by what is in it")
NESTING = Limit("nesting", 64, "graphs inside nodes, and functions that call functions, one in the other")
TENSOR_VALUES = Limit("tensor-values", 2**28, "values of one tensor that a graph computes, or declares without storing")
LAYERS = Limit("layers", 1_000, "layers that a config asks for")
SIZES = Limit("sizes", 2**24, "any one size in a config: a vocabulary, positions, channels, pixels of a side")
PARAMETERS = Limit("parameters", 2**31, "parameters of a model that a config describes")
INPUT_VALUES = Limit("input-values", 2**25, "values of the inputs that a config asks to make of one sample")
PIXELS = Limit("pixels", 178_956_970, "pixels of an image, or of what a config resizes one to")
TOKENIZER_BYTES = Limit("tokenizer-bytes", 2**26, "bytes of a tokenizer.json")
TOKENIZER_GROWTH = Limit("tokenizer-growth", 4_096, "how many times longer the replacements of a tokenizer make a text")
TOKENIZER_STEPS = Limit("tokenizer-steps", 1_000, "normalizers, pre-tokenizers and decoders of a tokenizer")
TOKENIZER_REPEATS = Limit("tokenizer-repeats", 8, "repeats in a pattern of a tokenizer that are in or after each other")
TOKENIZER_WORD = Limit("tokenizer-word", 10_000, "characters that a tokenizer takes for one word at most")
UNPACKED_BYTES = Limit("unpacked-bytes", 2**32, "bytes that the compressed arrays of an .npz unpack to")
RUN_SECONDS = Limit("run-seconds", 60, "seconds of one run of a graph on up to 8 samples; of more, in proportion")
IMPORT_SECONDS = Limit("import-seconds", 60, "seconds of all runs that find the batch axis of a foreign graph")
IMPORT_BYTES = Limit("import-bytes", 2**32, "bytes of memory that those runs may take")

LIMITS = (
    NODES, NESTING, TENSOR_VALUES, LAYERS, SIZES, PARAMETERS, INPUT_VALUES, PIXELS, TOKENIZER_BYTES, TOKENIZER_GROWTH,
    TOKENIZER_STEPS, TOKENIZER_REPEATS, TOKENIZER_WORD, UNPACKED_BYTES, RUN_SECONDS, IMPORT_SECONDS,
    IMPORT_BYTES,
)  # fmt: skip
OF_STORED = 16  # parameters for each byte of stored weights: of a module that was cut down to a 64th, in float32
SMALL = 2**26  # parameters that any config may describe, whatever its weights are


def check_layers(config: Mapping[str, Any], names: Iterable[str], whose: str) -> None:
    """Refuse a config that asks for more layers than the limit: in one of ``names``, a number or a list of them.

    Raises:
        TooLargeError: it does.
    """
    for name in names:
        LAYERS.check(_total(config.get(name)), whose, f"layers by {name!r}")


def check_sizes(config: Any, whose: str) -> None:
    """Refuse a config that has a larger number than the limit of one size, wherever it stands.

    Raises:
        TooLargeError: it does.
    """
    waiting: list[tuple[str, Any]] = [("", config)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(str(key), each) for key, each in value.items()]
        elif isinstance(value, (list, tuple)):
            waiting += [(name, each) for each in value]
        elif isinstance(value, int):
            SIZES.check(abs(value), whose, f"as {name[:60]!r}")


def check_parameters(count: int, whose: str, stored: int = 0) -> None:
    """Refuse a model of more parameters than the limit, or than weights of ``stored`` bytes can be meant for (0: any).

    Raises:
        TooLargeError: it is; nothing of it was allocated yet.
    """
    PARAMETERS.check(count, whose)
    if stored and count > max(SMALL, OF_STORED * stored) and PARAMETERS.value == PARAMETERS.default:
        raise PARAMETERS.refusal(f"{whose} describes {count:,} parameters, and its weights are {stored:,} bytes")


def _total(value: Any) -> float:
    if isinstance(value, (list, tuple)):
        return sum(map(_total, value))
    return value if isinstance(value, (int, float)) else 0


def _written(count: float) -> str:
    """A number to read: a huge one is rounded, since it may have thousands of digits."""
    return f"{count:,.0f}" if count < 1e15 else "more than 10^15"
