"""Reports and rejections in the words that bundles had before they were typed, which are short to write."""

from __future__ import annotations

from typing import Any

from pocketzoo.core.typed import from_plain
from pocketzoo.zoo.bundles.early_format_2 import converted, report_of
from pocketzoo.zoo.bundles.step_record import Rejection, StepReport


def report(**facts: Any) -> StepReport:
    """``report(bytes_before=2, bytes_after=1, sqnr_db=20.0)``."""
    return from_plain(StepReport, report_of(facts))


def rejection(**facts: Any) -> Rejection:
    """``rejection(kind="prune", why="larger", cause="larger")``."""
    (no,) = converted({"rejected": [facts]})["rejected"]
    return from_plain(Rejection, no)
