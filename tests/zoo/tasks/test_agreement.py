from __future__ import annotations

import numpy as np
import pytest
from scoring import classes, task

from pocketzoo.zoo.graphs.foreign.selections import Selection
from pocketzoo.zoo.tasks.agreement import (
    Comparison,
    decibels,
    noise_to_signal,
    not_finite,
    sqnr,
    worst,
)
from pocketzoo.zoo.tasks.metrics.embeddings import NEIGHBORS, nearest_neighbors
from pocketzoo.zoo.tasks.output_forms import OutputForms, OutputParts

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("error", "decibel"), [(1.0, 0.0), (0.1, 20.0), (0.01, 40.0)])
def test_sqnr_is_a_ratio_of_powers(error, decibel):
    x = RNG.normal(size=(8, 8))
    assert sqnr(x * (1 + error), x) == pytest.approx(decibel)
    assert sqnr(x, x) == np.inf
    assert sqnr(x * np.nan, x) == sqnr(x[:1], x) == sqnr(x, 0 * x) == -np.inf


def test_the_nearest_neighbour_is_by_the_angle():
    vectors = np.array([[1, 0], [100, 1], [0, 1], [-1, 5]], np.float32)
    assert nearest_neighbors(vectors).tolist() == [1, 0, 3, 2]
    assert nearest_neighbors(vectors * [[7], [0.1], [3], [2]]).tolist() == [1, 0, 3, 2]


# -- all outputs of a model


def compared(given, wanted, of_task=None, y=None) -> Comparison:
    """Both sides are given in two batches, as they are when data is read."""
    found = Comparison(of_task)
    count = len(next(iter(wanted.values())))
    for part in (slice(0, count // 3), slice(count // 3, count)):
        of = [{name: array[part] for name, array in outputs.items()} for outputs in (given, wanted)]
        found.add(*of, {"x": np.zeros((len(range(count)[part]), 3))}, None if y is None else y[part])
    return found


def test_every_output_has_an_sqnr_of_its_own():
    wanted = {"scores": RNG.normal(size=(9, 5)), "boxes": RNG.normal(size=(9, 4, 6, 6)), "k": np.ones((9, 2))}
    given = {"scores": wanted["scores"] * 1.001, "boxes": -wanted["boxes"], "k": wanted["k"]}
    found = compared(given, wanted)
    assert found.sqnr == {"scores": pytest.approx(60.0), "boxes": pytest.approx(-20 * np.log10(2)), "k": None}
    assert worst(found.sqnr) == found.sqnr["boxes"]
    assert (found.agreement, found.score, found.samples) == (None, None, 9)


def test_an_output_that_joins_unlike_parts_is_as_near_as_the_worst_of_them():
    """Boxes of 300 pixels are 60 dB near, scores below 1 are lost, and one part is never anything."""
    boxes, scores = RNG.uniform(100, 300, (6, 7, 4)), RNG.uniform(0, 1, (6, 7, 2))
    wanted, given = (np.concatenate([b, s, 0 * s], -1) for b, s in ((boxes, scores), (boxes * 1.001, scores * 0.9)))
    parts = {"y": OutputParts(-1, (4, 6, 8)), "z": OutputParts(-1, (2, 3))}
    found = Comparison(None, forms=OutputForms(parts))
    for i in range(0, 6, 2):
        found.add({"y": given[i : i + 2]}, {"y": wanted[i : i + 2]}, {"x": np.zeros((2, 3))})
    assert found.sqnr == {"y": pytest.approx(20.0)}
    assert found.worst_parts == {"y": "4 to 5 of axis -1"}
    same = Comparison(None, forms=OutputForms(parts))
    same.add({"y": wanted}, {"y": wanted}, {"x": np.zeros((6, 3))})
    assert same.sqnr == {"y": None}


def test_outputs_of_other_names_are_told_by_their_place():
    wanted = {"a": np.ones((6, 2)), "b": np.ones((6, 3))}
    found = compared({"x": np.ones((6, 2)), "y": np.full((6, 3), 1.1)}, wanted)
    assert found.sqnr == {"a": None, "b": pytest.approx(20.0)}


@pytest.mark.parametrize("kind", [np.int64, np.bool_, object])
def test_what_has_no_distance_counts_what_differs(kind):
    """Of ten values one is another: 10 dB, however far apart the two labels are."""
    wanted = np.array([0, 1] * 5).astype(str if kind is object else kind).astype(kind)
    given = wanted.copy()
    given[3] = kind(7) if kind is np.int64 else "7" if kind is object else not given[3]
    assert compared({"y": given}, {"y": wanted}).sqnr == {"y": pytest.approx(10.0)}


def test_what_is_infinite_in_both_alike_is_no_error():
    wanted = np.where(np.eye(6) > 0, -np.inf, 2.0)
    found = compared({"y": np.where(np.eye(6) > 0, -np.inf, 2.2)}, {"y": wanted})
    assert found.sqnr == {"y": pytest.approx(20.0)}
    assert not_finite({"y": wanted}, {"y": wanted}) == ""
    assert not_finite({"y": wanted}, {"y": np.ones_like(wanted)}) == "y"
    assert compared({"y": -wanted}, {"y": wanted}).sqnr == {"y": -np.inf}


def test_another_shape_is_as_far_as_can_be():
    assert compared({"y": np.ones((6, 3))}, {"y": np.ones((6, 4))}).sqnr == {"y": -np.inf}


@pytest.mark.parametrize(
    ("shape", "answers"), [((9, 5), True), ((9, 1), False), ((9, 5, 4), False), ((9, 5, 4, 4), False), ((9,), False)]
)
def test_only_rows_of_classes_have_a_top_answer(shape, answers):
    wanted = {"y": RNG.normal(size=shape)}
    found = compared(wanted, wanted, classes(5), y=np.zeros(9, np.int64))
    assert (found.agreement and found.agreement.value) == (1.0 if answers else None)
    assert (found.score is not None) == answers
    assert bool(found.unanswered) != answers


def test_a_label_is_an_answer_already():
    wanted = {"label": np.arange(10), "scores": RNG.normal(size=(10, 4))}
    given = {**wanted, "label": np.where(np.arange(10) < 3, 0, np.arange(10))}
    found = compared(given, wanted, classes(10), y=np.arange(10))
    assert (found.agreement.value, found.score.value) == (0.8, 0.8)
    beyond = {**wanted, "label": np.where(np.arange(10) < 3, 99, np.arange(10))}
    found = compared(beyond, wanted, classes(10), y=np.arange(10))
    assert (found.agreement.value, found.score) == (0.7, None)
    assert found.unscored == "the model answers 100 classes, and has 10 labels"


def test_chance_is_the_most_frequent_class():
    y = np.array([0, 0, 0, 1, 2, 2])
    wanted = {"y": np.eye(3)[y]}
    assert compared(wanted, wanted, classes(3), y=y).chance == 0.5
    assert compared(wanted, wanted, classes(3)).chance == 0.0


@pytest.mark.parametrize(("count", "known"), [(NEIGHBORS - 1, False), (NEIGHBORS, True)])
def test_neighbours_are_counted_among_many(count, known):
    wanted = {"y": RNG.normal(size=(count, 8))}
    found = compared(wanted, wanted, task("feature-extraction"))
    assert (found.agreement and found.agreement.value) == (1.0 if known else None)
    assert found.unanswered == ("" if known else "255 embeddings are too few to compare nearest neighbors")
    assert compared(wanted, wanted).agreement is None


def test_noise_to_signal_is_over_all_arrays_together():
    a, b = RNG.normal(size=(3, 4)), RNG.normal(size=(2, 4))
    assert noise_to_signal([a * 1.1, b * 1.1], [a, b]) == pytest.approx(0.01)
    assert noise_to_signal([a], [a]) == 0.0
    assert noise_to_signal([a], [b]) == noise_to_signal([a], [0 * a]) == np.inf


@pytest.mark.parametrize(
    ("wanted", "given", "flat"),
    [
        (100 + RNG.normal(size=200), np.full(200, 100.0), True),  # 40 dB, and all that varied is gone
        (100 + 3 * np.arange(200.0), 100 + 3 * np.arange(200.0) + RNG.normal(size=200), False),
        (np.arange(200) < 6, np.zeros(200, bool), True),  # 15 dB, and nothing is found any more
        (np.arange(200) < 6, np.arange(200) < 4, False),
        (np.arange(200) < 194, np.ones(200, bool), True),
        (np.repeat([4, 4, 4, 7], 50), np.repeat([4, 4, 4, 4], 50), True),
        (np.repeat([4, 4, 4, 7], 50), np.repeat([4, 4, 4, 7], 50), False),
        (np.full(200, 5.0), np.full(200, 5.0 + 1e-6), False),  # what never varies was computed in another order
        (np.full(200, 5.0), np.full(200, 5.1), True),
    ],
)
def test_what_is_no_nearer_than_a_constant_is_told(wanted, given, flat):
    assert compared({"y": given}, {"y": wanted}).like_constants == (("y",) if flat else ())


# -- thresholds and defaults


@pytest.mark.parametrize(
    ("signal", "noise", "wanted"),
    [(100.0, 1.0, 20.0), (1.0, 100.0, -20.0), (1.0, 0.0, np.inf), (0.0, 0.0, np.inf), (0.0, 1.0, -np.inf),
     (1.0, np.inf, -np.inf)],
)  # fmt: skip
def test_decibels(signal, noise, wanted):
    assert decibels(signal, noise) == pytest.approx(wanted)


def test_an_output_that_is_no_number_is_named():
    fine, broken = np.array([1.0, np.inf]), np.array([np.nan, np.inf])
    assert not_finite({"a": fine, "b": broken}, {"a": fine, "b": fine}) == "b"
    assert not_finite({"a": fine, "b": fine}, {"a": fine, "b": broken}) == ""
    assert not_finite({"a": broken}, {"a": broken}) == "a", "a reference that gives none"
    assert not_finite({"a": np.array([2])}, {"a": np.array([1])}) == ""
    assert not_finite({"a": broken[:1]}, {"a": fine}) == ""
    assert not_finite({}, {}) == ""


def test_the_worst_is_the_lowest():
    assert worst({"a": None, "b": 3.0, "c": -1.0}) == -1.0
    assert worst({"a": None}) is None
    assert worst({}) is None


def test_targets_count_only_where_they_are_of_the_task():
    wanted = {"y": np.eye(3)[[0, 1, 2]]}
    given = {"y": np.eye(3)[[0, 1, 1]]}

    def found(of_task, y):
        both = Comparison(of_task)
        both.add(given, wanted, {"x": np.zeros((3, 3))}, y)
        return both.agreement.value, both.score and both.score.value, both.chance

    assert found(classes(3), np.array([1, 1, 1])) == (2 / 3, 2 / 3, 1.0)
    assert found(classes(3), np.array([[1], [1], [1]])) == (2 / 3, None, 0.0)
    assert found(classes(3), np.array([1, 1])) == (2 / 3, None, 0.0)
    assert found(classes(3), None) == (2 / 3, None, 0.0)


def test_a_better_model_of_numbers_agrees():
    """The case of a regression that gained by being pruned: half of its numbers moved, all for the better."""
    y = RNG.normal(size=(300, 1)).astype(np.float32)
    before, after = y + 0.3 * RNG.normal(size=y.shape), y + 0.1 * RNG.normal(size=y.shape)
    found = compared({"y": after}, {"y": before}, task("regression"), y)
    whole = compared({"y": before}, {"y": before}, task("regression"), y)
    assert found.score.value > whole.score.value
    assert found.agreement.value > 0.85
    assert found.about == f"{found.agreement.value:.1%} of the variance of its numbers the same"


def test_whole_numbers_that_floats_are_rounded_to_are_numbers():
    """Every fourth pixel of an image is one level off: as labels a quarter would be wrong, 6 dB."""
    pixels = RNG.integers(50, 200, (4, 3, 8, 8), np.uint8)
    given = pixels.copy()
    given.reshape(-1)[::4] += 1
    sqnr = 10 * np.log10(np.square(pixels, dtype=float).sum() / (pixels.size / 4))
    for rounded, expected in ((("y",), sqnr), ((), 10 * np.log10(4))):
        found = Comparison(None, forms=OutputForms(rounded=frozenset(rounded)))
        found.add({"y": given}, {"y": pixels}, {"x": np.zeros((4, 3))})
        assert found.sqnr == {"y": pytest.approx(expected)}
        assert found.differing == ({} if rounded else {"y": 0.25})


# -- outputs that are selected


def objects(*arrays: list[object]) -> np.ndarray:
    """An array for each sample."""
    made = np.empty(len(arrays), object)
    made[:] = [np.array(each) for each in arrays]
    return made


def test_what_is_selected_is_compared_before_and_by_how_much_is_selected_by_both():
    selection = Selection("NonMaxSuppression", ("boxes", "scores"), "chosen", 2, 0)
    boxes, scores = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 3))
    chosen = objects([[0, 1], [0, 2]], [[0, 0]]), objects([[0, 2], [0, 0], [0, 1]], [[0, 1]])
    found = Comparison(None, forms=OutputForms(selections={"y": selection}))
    outputs = [
        {
            "y": objects(*(np.zeros(len(each)) for each in of)),
            "other": scores,
            "y, before 0": boxes,
            "y, before 1": scores * (1 + error),
            "y, which": of,
        }
        for of, error in zip(chosen, (0.1, 0.0), strict=True)
    ]
    found.add(outputs[0], outputs[1], {"x": boxes})
    assert list(found.sqnr) == ["y", "other"]
    assert found.sqnr["other"] is None
    assert found.sqnr["y"] == pytest.approx(20.0)  # of the scores: the boxes are equal
    assert found.selected_by == {"y": "NonMaxSuppression"}
    assert found.same_selection == {"y": pytest.approx((2 / 3 + 0) / 2)}
    assert found.worst_parts == {"y": "'scores' before NonMaxSuppression"}
    assert found.like_constants == ()
    assert found.differing == {}
    found.add({**outputs[1], "y, before 0": boxes * 0 + 7}, outputs[1], {"x": boxes})
    assert found.like_constants == ("y",)


def test_a_runner_that_gives_no_more_than_its_outputs_says_nothing_of_one_that_is_selected():
    found = Comparison(None, forms=OutputForms(selections={"y": Selection("NonZero", ("a",), "y", 2, 1)}))
    found.add({"y": np.zeros((2, 3)), "z": np.ones(2)}, {"y": np.zeros((2, 4)), "z": np.ones(2)}, {"x": np.ones(2)})
    assert found.sqnr == {"z": None}
    assert found.selected_by == found.same_selection == {}


def test_outputs_of_another_shape_for_each_sample_are_compared_sample_by_sample():
    theirs = objects([1.0, 2.0], [3.0])
    found = Comparison(None)
    found.add({"y": objects([1.0, 2.0], [0.0])}, {"y": theirs}, {"x": np.ones(2)})
    assert found.sqnr == {"y": pytest.approx(10 * np.log10(14 / 9))}
    found.add({"y": objects([1.0], [3.0])}, {"y": theirs}, {"x": np.ones(2)})
    assert found.sqnr == {"y": -np.inf}


def test_selections_of_one_run_have_no_axis_for_samples():
    found = Comparison(None, forms=OutputForms(selections={"y": Selection("NonZero", ("a",), "y", 2, 1)}))
    theirs = {"y": np.zeros((2, 2)), "y, before 0": np.ones(2), "y, which": np.array([[0, 1], [0, 1]])}
    found.add({**theirs, "y, which": np.array([[0], [0]])}, theirs, {"x": np.ones(1)})
    assert found.same_selection == {"y": 0.5}
    nothing = {**theirs, "y, which": np.zeros((2, 0))}
    found.add(nothing, nothing, {"x": np.ones(1)})
    assert found.same_selection == {"y": 0.75}


def test_of_a_constant_count_rows_are_held_against_rows_whatever_their_order():
    selection = Selection("TopK", ("a",), "y", along=-2, fixed=True)
    found = Comparison(None, forms=OutputForms(selections={"y": selection}))
    theirs = np.array([[[0, 5], [1, 6], [2, 7]], [[0, 1], [2, 3], [4, 5]]])  # 3 are selected in each of 4 columns
    ours = theirs[:, ::-1].copy()
    ours[1, 0, 0] = 9  # of {0, 2, 4} it has two: 2 of the 4 that either selects
    before = {"y, before 0": np.ones((2, 4))}
    found.add({"y": ours, "y, which": ours, **before}, {"y": theirs, "y, which": theirs, **before}, {"x": np.ones(2)})
    assert found.same_selection == {"y": pytest.approx((3 + 0.5) / 4)}
    assert found.sqnr == {"y": None}
    assert found.differing == {}


def test_of_a_constant_count_rows_are_compared_as_they_are_where_no_more_is_given():
    """As an engine gives them."""
    found = Comparison(None, forms=OutputForms(selections={"y": Selection("TopK", ("a",), "at", along=-1, fixed=True)}))
    theirs = {"y": np.array([[3.0, 4.0]])}
    found.add({"y": np.array([[3.0, 4.5]])}, theirs | {"y, before 0": np.ones((1, 9))}, {"x": np.ones(1)})
    assert found.sqnr == {"y": pytest.approx(20.0)}
    assert found.selected_by == {}
