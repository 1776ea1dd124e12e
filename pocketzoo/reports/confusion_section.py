"""Report section with the confusion matrix and the most confident misclassifications."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from pocketzoo.measure.confusion_matrix import Answers
from pocketzoo.reports.charts.svg import shorten, svg, text_width
from pocketzoo.reports.html_page import render
from pocketzoo.reports.measured.number_format import percent

MOST = 20  # classes that are drawn: those with the most mistakes
CELL = 44.0  # pixels, as all lengths here
FONT = 12.0
NAME = 150.0  # room for the longest name


def answers_section(answers: Answers, title: str, name: str) -> Markup:
    """The section; ``title`` says whose answers they are, ``name`` is unique on the page."""
    samples = int(answers.confusion.sum())
    classes = drawn(answers.confusion)
    width, drawing = _grid(answers, classes, name)
    few = len(classes) < len(answers.labels)
    shown = [mistake for mistake in answers.mistakes if mistake.source or mistake.text]
    heading = "Misclassified samples"
    return render(
        "answers.html",
        name=name,
        title=title,
        data=answers.data,
        right=f"{samples - answers.wrong:,}",
        samples=f"{samples:,}",
        share=percent((samples - answers.wrong) / samples if samples else 0.0, samples),
        width=f"{width:.0f}",
        drawing=drawing,
        hidden=f" The {len(classes)} classes with the most mistakes, of {len(answers.labels)}." * few,
        heading=heading if len(shown) == answers.wrong else f"{heading}: {len(shown)} of {answers.wrong:,}",
        kind="images" if any(mistake.source for mistake in shown) else "texts",
        mistakes=shown,
    )


def _grid(answers: Answers, shown: list[int], name: str) -> tuple[float, Markup]:
    """The width of the drawing, and the drawing."""
    counts = answers.confusion[np.ix_(shown, shown)]
    names = [answers.labels[i] for i in shown]
    totals = np.maximum(answers.confusion[shown].sum(1), 1)
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
