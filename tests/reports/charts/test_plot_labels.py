from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.reports.charts.plot_labels import Box, Mark, leader, place_labels

AREA = Box(50, 20, 1050, 370)
MARKS = st.lists(
    st.builds(
        Mark,
        x=st.floats(60, 1040),
        y=st.floats(30, 360),
        radius=st.floats(3, 26),
        label_width=st.floats(20, 220),
        label_height=st.just(32.0),
    ),
    max_size=14,
)


@given(MARKS)
def test_labels_are_inside_and_over_nothing(marks: list[Mark]) -> None:
    boxes = place_labels(marks, AREA)
    placed = [box for box in boxes if box]
    assert len(boxes) == len(marks)
    for i, box in enumerate(placed):
        assert box.inside(AREA)
        assert not any(box.overlap(other) for other in placed[:i])
        assert not any(box.overlap(mark.box) for mark in marks)


def test_a_mark_alone_has_its_label_right_beside_it() -> None:
    mark = Mark(500, 200, 10, 100, 32)
    assert place_labels([mark], AREA) == [Box(515, 184, 615, 216)]
    assert leader(mark, Box(515, 184, 615, 216)) is None


def test_at_the_edge_a_label_moves_inside() -> None:
    (box,) = place_labels([Mark(1045, 200, 10, 100, 32)], AREA)
    assert box is not None
    assert box.right <= AREA.right


def test_marks_on_one_spot_get_labels_around_it() -> None:
    boxes = place_labels([Mark(500, 200, 15, 150, 32)] * 4, AREA)
    assert None not in boxes


def test_a_label_that_is_far_off_has_a_line_to_its_mark() -> None:
    crowd = [Mark(500 + dx, 200 + dy, 15, 30, 32) for dx in (0, -40, 40) for dy in (0, -40, 40)]
    (box,) = place_labels(crowd, AREA)[:1]
    assert box is not None
    line = leader(crowd[0], box)
    assert line is not None
    assert math.hypot(line[0] - 500, line[1] - 200) == pytest.approx(16)


def test_a_line_is_avoided_where_there_is_room() -> None:
    mark, line = Mark(500, 200, 10, 100, 32), Box(500, 199, 1050, 201)
    (box,) = place_labels([mark], AREA, [line])
    assert box is not None
    assert not box.overlap(line)


def test_without_room_there_is_no_label() -> None:
    assert place_labels([Mark(100, 100, 10, 500, 32)], Box(0, 0, 200, 200)) == [None]
