from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.quantization import calibration
from pocketzoo.compress.quantization.calibration import activations, observe
from pocketzoo.compress.quantization.layer_inputs import ColumnMoments, Im2col
from pocketzoo.compress.statistics.histogram import BINS, SHRINK, VALUES, Histogram
from pocketzoo.core.errors import DataError

MINMAX, PERCENTILE, MSE, ENTROPY, AUTO = (
    Int8Config(ranges=r) for r in ("minmax", "percentile", "mse", "entropy", "auto")
)

# What activations look like: normal numbers of any common size, zeros among them.
VALUE = st.floats(-1e6, 1e6, width=32).map(lambda v: 0.0 if abs(v) < 1e-6 else v)
CHUNK = hnp.arrays(np.float32, st.integers(1, 40), elements=VALUE)
CHUNKS = st.lists(CHUNK, min_size=1, max_size=8)


def filled(chunks: list[np.ndarray]) -> Histogram:
    histogram = Histogram()
    for chunk in chunks:
        histogram.add(chunk)
    return histogram


def calibrate(model, tensors, samples, config):
    seen = observe(model, tensors, samples)
    return {name: histogram.range(config) for name, histogram in seen.histograms.items()}, seen.samples


def rounding_error(values: np.ndarray, low: float, high: float, levels: int) -> float:
    """Sum of squares lost by rounding to ``levels`` steps between ``low`` and ``high``, written out again."""
    scale = (high - low) / levels
    zero = round(-low / scale)
    q = np.clip(np.round(values / scale) + zero, 0, levels)
    return float((((q - zero) * scale - values) ** 2).sum())


# -- counts


@given(CHUNKS)
def test_no_value_is_lost_when_bins_double(chunks):
    """Every value from the first that is not zero is in some bin, however often the bins were merged."""
    histogram, seen = Histogram(), 0
    for chunk in chunks:
        histogram.add(chunk)
        if histogram.width > 0:
            seen += chunk.size
        assert histogram.counts.sum() == seen
        assert (histogram.counts >= 0).all()


@given(CHUNKS)
def test_every_value_is_in_the_bin_it_belongs_to_or_next_to_it(chunks):
    """Merging bins in pairs gives the bins that wide bins would have given at once."""
    histogram = filled(chunks)
    if histogram.width == 0:
        return
    start = next(i for i, c in enumerate(chunks) if np.any(c))
    values = np.concatenate([c.ravel() for c in chunks[start:]]).astype(np.float64)
    exact = np.clip(np.floor(values / histogram.width).astype(int) + BINS, 0, 2 * BINS - 1)
    direct = np.bincount(exact, minlength=2 * BINS).cumsum()
    found = histogram.counts.cumsum()
    # Values on an edge may fall to either side by rounding: cumulative counts agree up to a shift of one bin.
    assert (found[1:] >= direct[:-1]).all()
    assert (found[:-1] <= direct[1:]).all()


@given(st.lists(st.tuples(CHUNK, st.booleans()), min_size=1, max_size=12))
def test_samples_that_waited_for_each_other_are_counted_as_one_after_the_other(chunks):
    """Bin by bin, wherever the bins were merged and whatever was of another size."""
    counter, one_by_one = calibration._Counter("x"), Histogram()
    for chunk, flushed in chunks:
        one_by_one.add(chunk)
        counter.add(chunk)
        if flushed:
            counter.flush()
    counter.flush()
    together = counter.histogram
    assert (together.width, together.low, together.high) == (one_by_one.width, one_by_one.low, one_by_one.high)
    assert together.counts.tolist() == one_by_one.counts.tolist()


@given(CHUNKS)
def test_low_and_high_are_exact_and_hold_zero(chunks):
    histogram = filled(chunks)
    values = np.concatenate([c.ravel() for c in chunks])
    assert histogram.low == min(0.0, float(values.min()))
    assert histogram.high == max(0.0, float(values.max()))
    assert histogram.width * BINS >= max(-histogram.low, histogram.high)


@given(CHUNKS, st.sampled_from([MINMAX, PERCENTILE, MSE, Int8Config(ranges="percentile", percentile=80.0)]))
def test_a_range_always_holds_zero_and_no_more_than_was_seen(chunks, config):
    histogram = filled(chunks)
    found = histogram.range(config)
    assert found.low <= 0.0 <= found.high
    assert found.magnitude >= 0.0
    width = histogram.width
    assert histogram.low - width <= found.low
    assert found.high <= histogram.high + width
    assert found.magnitude <= max(-histogram.low, histogram.high) + width
    if np.any(np.concatenate([c.ravel() for c in chunks])):
        assert found.magnitude > 0


@given(CHUNKS)
def test_minmax_is_minimum_and_maximum(chunks):
    values = np.concatenate([c.ravel() for c in chunks])
    found = filled(chunks).range(MINMAX)
    assert found.low == min(0.0, float(values.min()))
    assert found.high == max(0.0, float(values.max()))
    assert found.magnitude == float(np.abs(values).max())


@given(CHUNKS)
def test_adding_does_not_change_the_values(chunks):
    copies = [c.copy() for c in chunks]
    filled(chunks)
    assert all(np.array_equal(a, b) for a, b in zip(chunks, copies, strict=True))


@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0, 3.0, 1000.0])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_growing_values_double_the_bins_as_often_as_needed(factor, sign):
    histogram = Histogram()
    histogram.add(np.array([sign], np.float32))
    assert histogram.width == 1 / BINS
    histogram.add(np.array([sign * factor], np.float32))
    assert histogram.width * BINS >= factor
    assert histogram.width * BINS < 2 * max(factor, 1.0)
    assert histogram.counts.sum() == 2


@pytest.mark.parametrize("first", [1e-30, 1e-12, 1e-3, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("second", [1e-30, 1e-12, 1e-3, 1.0, 1e12, 1e30])
def test_values_of_any_size_fit(first, second):
    histogram = filled([np.array([first, -first], np.float32), np.array([second], np.float32)])
    assert histogram.counts.sum() == 3
    assert histogram.high == pytest.approx(max(first, second), rel=1e-6)


@pytest.mark.parametrize("tiny", [1e-36, 1e-38, 1e-40, 1e-45])
def test_the_smallest_numbers_fit(tiny):
    """Activations of a dead layer are denormal: no overflow where the width is inverted."""
    histogram = filled([np.array([tiny, -tiny, 0.0], np.float32)])
    assert histogram.counts.sum() == 3
    for config in (MINMAX, PERCENTILE, MSE):
        found = histogram.range(config)
        assert found.low <= 0.0 <= found.high


@pytest.mark.parametrize("config", [MINMAX, PERCENTILE, MSE, ENTROPY, AUTO])
def test_a_tensor_of_zeros_has_an_empty_range(config):
    histogram = filled([np.zeros(10, np.float32), np.zeros((2, 3), np.float32)])
    found = histogram.range(config)
    assert (found.low, found.high, found.magnitude) == (0.0, 0.0, 0.0)


def test_large_tensors_are_sampled_evenly_but_their_extremes_are_seen():
    values = np.random.default_rng(0).normal(size=VALUES * 10).astype(np.float32)
    values[12347] = 50.0  # between two of the sampled places
    histogram = filled([values])
    assert histogram.high == 50.0
    assert VALUES <= histogram.counts.sum() <= 2 * VALUES
    median = histogram.centers[np.searchsorted(histogram.counts.cumsum(), histogram.counts.sum() / 2)]
    assert abs(median) < 0.1


# -- rules


@pytest.mark.parametrize("percentile", [60.0, 90.0, 99.0, 99.9, 99.99])
@pytest.mark.parametrize("kind", ["normal", "relu", "heavy", "negative", "uniform"])
def test_percentiles_are_those_of_numpy(kind, percentile):
    generator = np.random.default_rng(1)
    values = {
        "normal": lambda: generator.normal(size=400_000),
        "relu": lambda: np.abs(generator.normal(size=400_000)),
        "heavy": lambda: generator.standard_t(4, size=400_000),
        "negative": lambda: -generator.exponential(size=400_000),
        "uniform": lambda: generator.uniform(-1, 3, size=400_000),
    }[kind]().astype(np.float32)
    histogram = filled(np.split(values, 40))
    found = histogram.range(Int8Config(ranges="percentile", percentile=percentile))
    outside = 100.0 - percentile
    low, high = (0.0, percentile) if values.min() >= 0 else (outside / 2, 100.0 - outside / 2)
    wanted = np.percentile(values, [low, high])
    assert found.low == pytest.approx(min(0.0, wanted[0]), abs=2 * histogram.width)
    assert found.high == pytest.approx(max(0.0, wanted[1]), abs=2 * histogram.width)
    assert found.magnitude == max(-found.low, found.high)


@given(CHUNKS)
def test_the_hundredth_percentile_is_minimum_and_maximum(chunks):
    """Up to the width of a bin: nothing is left outside, and nothing is added."""
    histogram = filled(chunks)
    found = histogram.range(Int8Config(ranges="percentile", percentile=100.0))
    assert found.low == pytest.approx(histogram.low, abs=histogram.width)
    assert found.high == pytest.approx(histogram.high, abs=histogram.width)


@given(CHUNKS)
def test_a_higher_percentile_is_a_wider_range(chunks):
    histogram = filled(chunks)
    found = [histogram.range(Int8Config(ranges="percentile", percentile=p)) for p in (60.0, 90.0, 99.0, 99.99)]
    assert [r.low for r in found] == sorted((r.low for r in found), reverse=True)
    assert [r.high for r in found] == sorted(r.high for r in found)


@given(CHUNKS)
def test_least_error_is_never_worse_than_minmax(chunks):
    """On what the histogram knows: its bins' centers."""
    histogram = filled(chunks)
    if histogram.width == 0:
        return
    used = histogram.counts > 0
    values = np.repeat(histogram.centers[used], histogram.counts[used])
    best, widest = histogram.range(MSE), histogram.range(MINMAX)
    limit = rounding_error(values, widest.low, widest.high, 255)
    assert rounding_error(values, best.low, best.high, 255) <= limit * (1 + 1e-9) + 1e-30
    limit = rounding_error(values, -widest.magnitude, widest.magnitude, 254)
    assert rounding_error(values, -best.magnitude, best.magnitude, 254) <= limit * (1 + 1e-9) + 1e-30


@given(CHUNKS)
def test_auto_is_never_worse_than_any_rule(chunks):
    histogram = filled(chunks)
    if histogram.width == 0:
        return
    used = histogram.counts > 0
    values, best = np.repeat(histogram.centers[used], histogram.counts[used]), histogram.range(AUTO)
    for config in (MINMAX, PERCENTILE, ENTROPY, MSE):
        rule = histogram.range(config)
        if rule.high > rule.low:
            limit = rounding_error(values, rule.low, rule.high, 255)
            assert rounding_error(values, best.low, best.high, 255) <= limit * (1 + 1e-9) + 1e-30


def test_entropy_keeps_a_uniform_range_and_cuts_a_lone_outlier():
    values = np.random.default_rng(0).uniform(-1, 1, size=50_000).astype(np.float32)
    found = filled([values]).range(ENTROPY)
    assert found.low < -0.97
    assert found.high > 0.97
    normal = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    normal[7] = 40.0
    found = filled([normal]).range(ENTROPY)
    assert 2.0 < found.high < 20.0
    assert 2.0 < found.magnitude < 20.0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("freedom", [2, 3, 5])
def test_least_error_cuts_long_tails_and_gains_on_the_values_themselves(freedom, seed):
    values = np.random.default_rng(seed).standard_t(freedom, size=100_000).astype(np.float32)
    histogram = filled([*np.split(values, 10)])
    best, widest = histogram.range(MSE), histogram.range(MINMAX)
    assert widest.low < best.low < 0 < best.high < widest.high
    assert rounding_error(values, best.low, best.high, 255) < rounding_error(values, widest.low, widest.high, 255)


def test_least_error_keeps_a_uniform_range_whole():
    values = np.random.default_rng(0).uniform(-1, 1, size=50_000).astype(np.float32)
    found = filled([values]).range(MSE)
    assert found.low < -0.97
    assert found.high > 0.97


@pytest.mark.parametrize("config", [MINMAX, PERCENTILE, MSE, ENTROPY, AUTO])
@pytest.mark.parametrize("sign", [-1, 1])
def test_values_of_one_sign_have_a_range_on_that_side(config, sign):
    values = sign * np.random.default_rng(0).exponential(size=10_000).astype(np.float32)
    found = filled([values]).range(config)
    assert (found.high if sign < 0 else found.low) == 0.0
    assert (found.low if sign < 0 else found.high) != 0.0


# -- streaming over a graph


def graph() -> onnx.ModelProto:
    """x (N, 4) -> relu -> twice."""
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("twice", onnx.TensorProto.FLOAT, ["batch", 4])
    nodes = [helper.make_node("Relu", ["x"], ["relu"]), helper.make_node("Add", ["relu", "relu"], ["twice"])]
    made = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 20)])
    made.ir_version = 10
    return made


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return graph()


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return (
        np.random.default_rng(0).normal(size=(48, 4)).astype(np.float32) * np.arange(1, 49, dtype=np.float32)[:, None]
    )


@pytest.mark.parametrize("size", [1, 2, 5, 16, 47, 48])
@pytest.mark.parametrize("config", [MINMAX, PERCENTILE, MSE], ids=["minmax", "percentile", "mse"])
def test_the_cutting_into_batches_does_not_matter(size, config, model, values):
    whole = calibrate(model, ["x", "relu", "twice"], [values], config)
    parts = calibrate(model, ["x", "relu", "twice"], [values[i : i + size] for i in range(0, 48, size)], config)
    assert parts == whole
    assert whole[1] == 48


def test_ranges_are_those_of_the_activations(model, values):
    found, count = calibrate(model, ["x", "relu", "twice"], [values], MINMAX)
    assert list(found) == ["x", "relu", "twice"]
    assert count == 48
    assert (found["x"].low, found["x"].high) == (float(values.min()), float(values.max()))
    assert (found["relu"].low, found["relu"].high) == (0.0, float(values.max()))
    assert found["twice"].high == 2 * float(values.max())


def test_only_the_wanted_tensors_are_watched(model, values):
    found, _ = calibrate(model, ["relu"], [values], MSE)
    assert set(found) == {"relu"}


def test_the_graph_is_not_changed(values):
    model = graph()
    before = model.SerializeToString()
    calibrate(model, ["x", "relu", "twice"], [values], MSE)
    assert model.SerializeToString() == before


def test_no_samples_are_refused(model, refused):
    with refused(DataError, "no samples"):
        calibrate(model, ["relu"], [], MSE)


# A ReLU makes minus infinity 0, so "twice" never sees it.
BAD = [(t, b) for t in ("x", "twice") for b in (np.nan, np.inf, -np.inf) if (t, b) != ("twice", -np.inf)]


@pytest.mark.parametrize("place", [(0, 0), (3, 2), (47, 3)])
@pytest.mark.parametrize(("tensor", "bad"), BAD)
def test_an_activation_that_is_not_finite_is_refused_by_name(tensor, bad, place, model, values, refused):
    broken = values.copy()
    broken[place] = bad
    with refused(DataError, "not finite", repr(tensor), hint="NaN"):
        calibrate(model, [tensor], [broken], MSE)


# -- memory


SCRIPT = """
import resource, sys
import numpy as np, onnx
from onnx import helper, numpy_helper
from pocketzoo.compress.quantization import calibration
from pocketzoo.compress.quantization.calibration import activations, observe
from pocketzoo.compress.quantization.layer_inputs import ColumnMoments, Im2col

count = int(sys.argv[1])
w = np.random.default_rng(0).normal(size=(16, 3, 3, 3)).astype(np.float32)
value = lambda name, shape: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
nodes = [
    helper.make_node("Conv", ["x", "w"], ["conv"], pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["conv"], ["relu"]),
]
graph = helper.make_graph(nodes, "g", [value("x", ["batch", 3, 96, 96])], [value("relu", ["batch", 16, 96, 96])],
                          [numpy_helper.from_array(w, "w")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
model.ir_version = 10
x = np.random.default_rng(1).normal(size=(8, 3, 96, 96)).astype(np.float32)
reading = Im2col("x", (3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
seen = observe(model, ["x", "conv", "relu"], (x + i for i in range(count // 8)), [reading])
assert seen.samples == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_samples():
    """1,024 samples give 700 MB of activations; none of it may stay."""

    def peak(count: int) -> int:
        script = textwrap.dedent(SCRIPT)
        done = subprocess.run([sys.executable, "-c", script, str(count)], capture_output=True, text=True, check=True)
        return int(done.stdout)

    few, many = peak(64), peak(1024)
    assert many <= few * 1.05, (few, many)


def test_second_moments_stop_where_more_samples_say_little_and_ranges_do_not(monkeypatch):
    """A Gemm reads one column a sample: FEW samples at the least, then ENOUGH for each input, MANY at the most."""
    weight = onnx.numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 2])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    samples = np.arange(40, dtype=np.float32)[:, None] * np.ones(4, np.float32)
    monkeypatch.setattr("pocketzoo.compress.quantization.calibration.FEW", 5)
    for enough, many, wanted in ((1, 30, 5), (3, 30, 12), (100, 30, 30)):
        monkeypatch.setattr("pocketzoo.compress.quantization.calibration.ENOUGH", enough)
        monkeypatch.setattr("pocketzoo.compress.quantization.calibration.MANY", many)
        read = Im2col("x")
        seen = observe(model, ["x"], [samples[:25], samples[25:]], [read])
        assert seen.moments[read].count == wanted
        assert seen.moments[read].second[0, 0, 0] == pytest.approx((samples[:wanted, 0] ** 2).mean(), rel=1e-5)
        assert (seen.samples, seen.histograms["x"].high) == (40, 39.0)


def test_a_sample_may_have_an_array_for_each_input():
    """Both inputs are seen, and what is computed of them; a mapping is one sample."""
    a, b = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in "ab")
    out = helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["sum"])], "g", [a, b], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    samples = [{"a": np.full((1, 2), i, np.float32), "b": np.ones((1, 2), np.float32)} for i in range(3)]
    found = list(activations(model, ["sum", "b"], samples))
    assert [values["sum"].tolist() for values in found] == [[[i + 1.0] * 2] for i in range(3)]
    assert all(values["b"].tolist() == [[1.0, 1.0]] for values in found)


def kept_information(histogram: Histogram, low: float, high: float, levels: int) -> float:
    """Kullback-Leibler divergence of Migacz 2017, written out again bin by bin."""
    inside: dict[int, float] = {}
    first = int(np.clip(np.floor(low / histogram.width) + BINS, 0, 2 * BINS - 1))
    last = int(np.clip(np.ceil(high / histogram.width) + BINS, first + 1, 2 * BINS))
    for i, count in enumerate(histogram.counts.tolist()):
        place = min(max(i, first), last - 1) - first
        inside[place] = inside.get(place, 0.0) + count
    own = {i - first: float(histogram.counts[i]) for i in range(first, last) if histogram.counts[i]}
    if not own:
        return np.inf
    width = last - first
    groups: dict[int, list[int]] = {}
    for place in own:
        groups.setdefault(place * min(levels, width) // width, []).append(place)
    told = {place: sum(own[p] for p in group) / len(group) for group in groups.values() for place in group}
    total, of_told = sum(inside.values()), sum(told.values())
    return sum(
        count / total * np.log(count / total / max(told.get(place, 0.0) / of_told, 1e-12))
        for place, count in inside.items()
        if count
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["skewed", "steps", "sparse"])
def test_entropy_is_the_least_divergence_of_those_tried(kind, seed):
    generator = np.random.default_rng(seed)
    values = {
        "skewed": lambda: generator.exponential(size=4000) ** 2 - 1.0,
        "steps": lambda: np.round(generator.standard_t(2, size=2000) * 4) / 4,
        "sparse": lambda: np.concatenate([generator.normal(size=300), [-37.0, -35.5, 21.0, 30.25]]),
    }[kind]().astype(np.float32)
    histogram = filled([values])
    found = histogram.range(ENTROPY)
    reach = max(-histogram.low, histogram.high)
    lost = {s: kept_information(histogram, -reach * s, reach * s, 254) for s in SHRINK}
    assert lost[min(SHRINK, key=lambda s: abs(reach * s - found.magnitude))] == pytest.approx(min(lost.values()))
    both = min(kept_information(histogram, histogram.low * s, histogram.high * s, 255) for s in SHRINK)
    assert kept_information(histogram, found.low, found.high, 255) <= both + 1e-9


def test_shrunk_ranges_are_from_all_to_a_tenth():
    assert (len(SHRINK), SHRINK[0], SHRINK[-1]) == (46, 1.0, pytest.approx(0.1))
    assert (np.diff(SHRINK) < 0).all()
    assert (BINS, VALUES) == (2048, 16384)


@pytest.mark.parametrize(
    ("samples", "count", "held", "wanted"),
    [
        (127, 10**6, 0, True),
        (128, 64 * 3 - 1, 0, True),
        (128, 64 * 3, 0, False),
        (128, 100, 91, True),
        (128, 100, 92, False),
        (511, 0, 0, True),
        (512, 0, 0, False),
    ],
)
def test_second_moments_want_more_samples_until_they_have_enough(samples, count, held, wanted):
    """64 columns for each of three inputs, between 128 and 512 samples."""
    moments = ColumnMoments.empty(1, 3)
    moments.count, moments.held = count, held
    assert calibration._wants(moments, samples) == wanted


def pictures() -> onnx.ModelProto:
    """x (N, 2, 30, 30) -> relu -> y."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2, 30, 30]) for name in "xy")
    nodes = [helper.make_node("Relu", ["x"], ["relu"]), helper.make_node("Neg", ["relu"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_each_layer_sees_its_own_columns_and_samples_take_turns():
    """Of one tensor two layers read differently; one that is read by a layer alone has no histogram."""
    values = np.random.default_rng(0).normal(size=(5, 2, 30, 30)).astype(np.float32)
    wide = Im2col("relu", (3, 3), (1, 1), (1, 1), (0, 0, 0, 0))
    narrow = Im2col("relu", (1, 1), (2, 2), (1, 1), (0, 0, 0, 0))
    other = Im2col("x", (2, 2), (2, 2), (1, 1), (0, 0, 0, 0))
    seen = observe(pictures(), ["y"], [values[:2], values[2:]], [wide, narrow, other])
    assert list(seen.histograms) == ["y"]
    assert set(seen.moments) == {wide, narrow, other}
    for reading, source in ((wide, np.maximum(values, 0)), (narrow, np.maximum(values, 0)), (other, values)):
        columns = np.concatenate([reading.columns(source[i : i + 1], i) for i in range(5)], 2).astype(np.float64)
        found = seen.moments[reading]
        assert (found.count, found.held) == (columns.shape[2], 0)
        np.testing.assert_allclose(found.first, columns.mean(2), rtol=1e-4, atol=1e-5)
        second = columns @ columns.transpose(0, 2, 1) / columns.shape[2]
        np.testing.assert_allclose(found.second, second, rtol=1e-3, atol=1e-4)
    assert not np.array_equal(narrow.columns(values[:1], 0), narrow.columns(values[:1], 1))


def test_a_layer_that_has_seen_enough_does_not_keep_the_next_from_seeing_more(monkeypatch):
    monkeypatch.setattr(calibration, "FEW", 1)
    monkeypatch.setattr(calibration, "ENOUGH", 100)
    values = np.random.default_rng(0).normal(size=(6, 2, 30, 30)).astype(np.float32)
    satisfied = Im2col("x", (1, 1), (1, 1), (1, 1), (0, 0, 0, 0))
    hungry = Im2col("x", (3, 3), (9, 9), (1, 1), (0, 0, 0, 0))
    seen = observe(pictures(), [], [values], [satisfied, hungry])
    assert seen.histograms == {}
    each = [reading.columns(values[:1]).shape[2] for reading in (satisfied, hungry)]
    assert seen.moments[satisfied].count == each[0] * -(-200 // each[0]) < each[0] * 6
    assert seen.moments[hungry].count == each[1] * 6


def identity(**inputs: list[int | str]) -> onnx.ModelProto:
    """A graph that gives back what it reads: input -> shape."""
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    outputs = [helper.make_tensor_value_info(f"{v.name}.out", onnx.TensorProto.FLOAT, None) for v in values]
    nodes = [helper.make_node("Identity", [v.name], [f"{v.name}.out"]) for v in values]
    return helper.make_model(helper.make_graph(nodes, "g", values, outputs))


def test_samples_come_one_by_one():
    batch = np.arange(6, dtype=np.float32).reshape(3, 2)
    found = list(calibration.one_by_one(identity(x=["n", 2]), [batch, {"x": batch[:0]}, {"other": batch[:1]}]))
    assert [list(each) for each in found] == [["x"]] * 4
    assert [each["x"].tolist() for each in found] == [[[0.0, 1.0]], [[2.0, 3.0]], [[4.0, 5.0]], [[0.0, 1.0]]]


def test_each_input_is_taken_along_its_own_batch_axis_and_whole_where_it_has_none(refused):
    graph = identity(x=["batch", 2], y=[3, "batch"], z=[2])
    feed = {
        name: np.random.default_rng(0).normal(size=shape) for name, shape in (("x", (4, 2)), ("y", (3, 4)), ("z", 2))
    }
    found = list(calibration.one_by_one(graph, [feed]))
    assert [np.shape(each["y"]) for each in found] == [(3, 1)] * 4
    np.testing.assert_array_equal(np.concatenate([each["x"] for each in found]), feed["x"])
    np.testing.assert_array_equal(np.concatenate([each["y"] for each in found], 1), feed["y"])
    assert all(each["z"] is feed["z"] for each in found)
    (whole,) = calibration.one_by_one(identity(x=[4, 2]), [{"x": feed["x"]}])
    assert whole["x"] is feed["x"]
    for wrong in ({"x": feed["x"], "y": feed["y"]}, feed | {"w": feed["x"]}):
        with refused(DataError, "calibration", "x, y, z", hint="each input"):
            list(calibration.one_by_one(graph, [wrong]))


def test_values_of_the_graph_as_written_may_be_infinite_and_are_those_of_its_own_nodes(model, monkeypatch):
    asked, real = [], calibration.open_session
    monkeypatch.setattr(calibration, "open_session", lambda path, **how: asked.append(how) or real(path, **how))
    x = np.array([[np.inf, -1.0, 2.0, 0.0]], np.float32)
    (found,) = activations(model, ["x", "twice", "relu"], [x], as_written=True)
    assert {name: value.tolist() for name, value in found.items()} == {
        "x": x.tolist(),
        "relu": [[np.inf, 0.0, 2.0, 0.0]],
        "twice": [[np.inf, 0.0, 4.0, 0.0]],
    }
    with pytest.raises(DataError, match="'x' is not finite"):
        list(activations(model, ["relu", "x"], [np.array([[-np.inf, 0, 0, 0]], np.float32)]))
    assert [how["optimization"] for how in asked] == ["none", "all"]
    assert all(how == {**how, "arena": False} and len(how) == 2 for how in asked)


def test_inputs_alone_are_given_without_running_anything(model):
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    assert [v["x"].tolist() for v in activations(model, ["x"], [x])] == [[x[0].tolist()], [x[1].tolist()]]
    assert [list(v) for v in activations(model, ["x"], [x])] == [["x"], ["x"]]


def test_the_session_gives_what_is_watched_besides_the_outputs_and_the_graph_is_as_before():
    model = graph()
    before = model.SerializeToString()
    session = calibration._session(model, ["twice", "relu"], as_written=False)
    assert [o.name for o in session.get_outputs()] == ["twice", "relu"]
    assert model.SerializeToString() == before


def test_refusals_say_all(model, values, refused):
    with refused(DataError) as caught:
        observe(model, ["relu"], [values[:0]])
    assert caught.value.message == "there are no samples to calibrate on"
    assert caught.value.hint == "give a data set with a training split"
    with refused(DataError) as caught:
        observe(model, ["x"], [np.full((1, 4), np.nan, np.float32)])
    assert caught.value.message == "calibration: the activation 'x' is not finite"
    assert caught.value.hint == "check the samples, and the weights of the model, for NaN or infinity"


# -- parts


def _chain(length: int) -> onnx.ModelProto:
    """Tanh after tanh of what is doubled, (batch, 3, n)."""
    nodes, x = [], "x"
    for i in range(length):
        nodes += [helper.make_node("Add", [x, x], [f"a{i}"]), helper.make_node("Tanh", [f"a{i}"], [f"t{i}"])]
        x = f"t{i}"
    shape = ["batch", 3, "n"]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", x)]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_tensors_that_do_not_fit_at_once_are_looked_at_in_parts(monkeypatch):
    """As many passes as parts, each over all samples, and the same is seen."""
    model, samples = _chain(6), [np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)]
    tensors = [f"{kind}{i}" for i in range(6) for kind in "at"]
    one = 3 * 5 * 4  # bytes of each, for one sample
    feed = {"x": samples[0][:1]}
    whole = observe(model, tensors, samples)
    assert calibration.parts(model, tensors, feed) == [tensors]
    monkeypatch.setattr(calibration, "AT_ONCE", 5 * one)
    assert calibration.parts(model, tensors, feed) == [tensors[:5], tensors[5:10], tensors[10:]]
    read = []

    class Counted:
        def __iter__(self):
            read.append(0)
            return iter(samples)

    divided = observe(model, tensors, Counted())
    assert len(read) == 3
    seen = list(calibration.activations_in_parts(model, tensors, samples))
    assert [list(values) for values in seen] == [
        part for part in calibration.parts(model, tensors, feed) for _ in "4444"
    ]
    for values, at_once in zip(seen, [*activations(model, tensors, samples)] * 3, strict=True):
        for name, value in values.items():
            np.testing.assert_allclose(value, at_once[name], rtol=1e-6)
    assert divided.samples == whole.samples == 4
    for name in tensors:
        assert divided.histograms[name].low == pytest.approx(whole.histograms[name].low, rel=1e-6)
        assert divided.histograms[name].counts.sum() == whole.histograms[name].counts.sum()


def test_a_tensor_that_is_larger_than_a_part_is_one(monkeypatch):
    monkeypatch.setattr(calibration, "AT_ONCE", 1)
    feed = {"x": np.zeros((1, 3, 5), np.float32)}
    assert calibration.parts(_chain(2), ["x", "a0", "nobody", "t0"], feed) == [["x"], ["a0", "nobody"], ["t0"]]
