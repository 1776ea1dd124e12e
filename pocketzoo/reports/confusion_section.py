"""Report section with the metrics of a task, the confusion matrix, and the worst answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from pocketzoo.measure.confusion_matrix import Answers
from pocketzoo.reports.charts.svg import shorten, svg, text_width
from pocketzoo.reports.html_page import render
from pocketzoo.reports.measured.number_format import percent, plain
from pocketzoo.zoo.catalog.task import Estimate

MOST = 20  # classes that are drawn: those with the most mistakes
CELL = 44.0  # pixels, as all lengths here
FONT = 12.0
NAME = 150.0  # room for the longest name


def answers_section(answers: Answers, title: str, name: str) -> Markup:
    """The section; ``title`` says whose answers they are, ``name`` is unique on the page."""
    grid = None
    if answers.confusion is not None and len(answers.labels):
        classes = drawn(answers.confusion)
        width, drawing = _grid(answers.confusion, answers.labels, classes, name)
        few = len(classes) < len(answers.labels)
        hidden = f" The {len(classes)} classes with the most mistakes, of {len(answers.labels)}." * few
        grid = {"width": f"{width:.0f}", "drawing": drawing, "hidden": hidden}
    return render(
        "answers.html",
        name=name,
        title=title,
        data=answers.data,
        heading=_heading(answers),
        lead=_lead(answers),
        rows=[_metric_row(key, estimate, answers) for key, estimate in answers.results.items()],
        grid=grid,
        listed=_listed(answers),
        drawn=[Markup(each) for each in answers.drawn],  # a task's own, which escapes what is not
        kind="images" if any("<img" in each or "<svg" in each for each in answers.drawn) else "texts",
    )


def _heading(answers: Answers) -> str:
    if answers.wrong is None:
        return "Answers"
    return "Misclassified samples" if answers.confusion is not None else "Answers that are furthest from right"


def _listed(answers: Answers) -> str:
    """The heading of the answers, with how many there are where not all are shown."""
    shown, heading = len(answers.drawn), _heading(answers)
    total = answers.samples if answers.wrong is None else answers.wrong
    return heading if shown == total else f"{heading}: {shown} of {total:,}"


def _lead(answers: Answers) -> str:
    """What the section says first, after the name of the model."""
    metric = answers.metric
    if answers.confusion is not None and answers.wrong is not None:
        right = answers.samples - answers.wrong
        fraction = percent(right / answers.samples if answers.samples else 0.0, answers.samples)
        return f"classifies {right:,} of {answers.samples:,} test samples of {answers.data} correctly ({fraction})."
    where = f"{answers.samples:,} test samples of {answers.data}"
    return f"reaches {metric.shown(metric.value)} on {where}: {metric.name}."


def _metric_row(name: str, estimate: Estimate, answers: Answers) -> dict[str, str]:
    """A metric and its interval."""
    ends = (estimate.low, estimate.high)
    known = all(end is not None for end in ends)
    low, high = (plain(float(end)) if end is not None else "" for end in ends)
    return {
        "name": name.replace("_", " "),
        "value": plain(estimate.value),
        "interval": f"{low} to {high}" if known else "",
        "first": " first" if name == answers.metric.name else "",
    }


def _grid(confusion: npt.NDArray[np.int64], labels: Sequence[str], shown: list[int], name: str) -> tuple[float, Markup]:
    """The width of the drawing, and the drawing."""
    counts = confusion[np.ix_(shown, shown)]
    names = [labels[i] for i in shown]
    totals = np.maximum(confusion[shown].sum(1), 1)
    left = min(max(text_width(each, FONT) for each in names) + 14, NAME)
    top = left * 0.72 + 12  # names of columns are turned by 45 degrees
    body = []
    for row, label in enumerate(names):
        y = top + row * CELL
        text = escape(shorten(label, left - 10, FONT))
        body.append(f'<text class="small end" x="{left - 8:g}" y="{y + CELL / 2 + 4:g}">{text}</text>')
        x = left + row * CELL + CELL / 2
        body.append(
            f'<text class="small" transform="translate({x:g} {top - 8:g}) rotate(-45)">{text}'
            f"<title>{escape(label)}</title></text>"
        )
        body += [
            _cell(counts[row, column], totals[row], row, column, names, (left, top)) for column in range(len(names))
        ]
    side = len(names) * CELL
    width, height = left + side + left * 0.72, top + side + 4
    words = "; ".join(f"{names[i]}: {counts[i, i]} of {totals[i]}" for i in range(len(names)))
    return width, svg(f"{name}-grid", width, height, "Confusion matrix", f"Correct predictions. {words}.", body, "")


def drawn(confusion: npt.NDArray[np.int64]) -> list[int]:
    """The classes of the grid, in their order: all, or those that occur in the most mistakes."""
    if len(confusion) <= MOST:
        return list(range(len(confusion)))
    mistakes = confusion.sum(0) + confusion.sum(1) - 2 * confusion.diagonal()
    return sorted(int(i) for i in np.argsort(-mistakes, kind="stable")[:MOST])


def _cell(count: int, total: int, row: int, column: int, names: list[str], origin: tuple[float, float]) -> str:
    x, y = origin[0] + column * CELL, origin[1] + row * CELL
    kind = "right" if row == column else "wrong"
    share = count / total
    tip = f"{names[row]}, predicted {names[column]}: {count} of {total}"
    fill = f' style="fill-opacity:{0.12 + 0.88 * share:.3f}"' if count else ""
    number = (
        f'<text class="middle count{" strong" if share > 0.55 else ""}" x="{x + CELL / 2:g}" '
        f'y="{y + CELL / 2 + 4:g}">{count}</text>'
    )
    return (
        f'<g><title>{escape(tip)}</title><rect class="{kind if count else "zero"}" x="{x + 1:g}" y="{y + 1:g}" '
        f'width="{CELL - 2:g}" height="{CELL - 2:g}" rx="3"{fill}/>{number * bool(count)}</g>'
    )
