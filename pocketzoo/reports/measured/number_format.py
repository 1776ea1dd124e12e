"""Format numbers for the page, each with its exact value and its place in the manifest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

NBSP = "\u00a0"
MINUS = "\u2212"
NOTHING = Markup('<span class="none" title="not known">&ndash;</span>')


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a manifest. ``key`` is its path there, dots between the parts."""

    value: float
    key: str  # "measurements.3.accuracy"; "graph.3.macs" is counted on the float graph by ``layer_costs``
    bundle: int  # which of the report's models it is of

    @property
    def attributes(self) -> Markup:
        """What lets a test, or a script, compare the page with the manifest."""
        facts = Markup('data-bundle="{}" data-key="{}" data-value="{}"')
        return facts.format(self.bundle, self.key, repr(self.value))

    def shown(self, text: str, tag: str = "span") -> Markup:
        """``text``, which stands for the number, with the number after it."""
        return Markup("<{0} {1}>{2}</{0}>").format(tag, self.attributes, text)


def decimals(values: Iterable[float]) -> int:
    """How many decimals give the smallest of a column three digits or so, and all of it the same number."""
    low = min((abs(v) for v in values if v), default=100.0)
    return 0 if low >= 100 else 1 if low >= 10 else 2 if low >= 0.1 else 3


def unit(values: Iterable[float]) -> tuple[str, float]:
    """The SI prefix that suits the largest of a column, and its size."""
    high = max(values, default=0.0)
    return next(((name, size) for name, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if high >= size), ("", 1.0))


def short(value: float) -> str:
    """Three digits and an SI prefix: 37160448 is "37.2 M"."""
    for name, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:  # 999,999 is 1.00 M, not 1000 k
            scaled = value / size
            return f"{scaled:,.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{NBSP}{name}"
    return f"{value:,.0f}"


def kilobytes(value: float) -> str:
    """Bytes as "1,513 KB" of 1,000 bytes."""
    return f"{value / 1e3:,.{0 if value >= 99_950 else 1}f}{NBSP}KB"


def milliseconds(value: float) -> str:
    """As "0.77 ms"."""
    return f"{value:,.{decimals([value])}f}{NBSP}ms"


def share_decimals(samples: int) -> int:
    """Decimals of a percentage: a second one where there are samples enough for it to mean something."""
    return 2 if samples > 2000 else 1


def percent(share: float, samples: int) -> str:
    """As "97.8%"."""
    return f"{100 * share:.{share_decimals(samples)}f}%"


def times(ratio: float) -> str:
    """As "5.9x", with the sign for it."""
    return f"{ratio:.{0 if ratio >= 9.95 else 1 if ratio >= 0.995 else 2}f}\u00d7"


def points(difference: float, digits: int = 1) -> str:
    """A difference of two shares in percentage points, with its sign."""
    rounded = f"{abs(100 * difference):.{digits}f}"
    return rounded if float(rounded) == 0 else f"{'+' if difference > 0 else MINUS}{rounded}"


def plain(value: float) -> str:
    """A number that nothing is known of: integers in full, others to four digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return f"{value:.4g}"
