"""What a table's processor learns of the training rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.core.errors import DataError, RecipeError
from pocketzoo.zoo.catalog.processor import TrainingSamples
from pocketzoo.zoo.catalog.processor_configs import MappingSpec, TableSpec
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.processors.open_processor import fitted_config, open_config
from pocketzoo.zoo.data.processors.table_columns import fitted, moments
from pocketzoo.zoo.data.processors.table_processor import TableProcessor

ROWS = np.float32([[1, 10, 5], [3, np.nan, 5], [8, 40, 5]])
WHOLE = np.float32([[1, 10, 5], [3, 25, 5], [8, 40, 5]])
IMAGE = InputSpec(shape=("batch", 1, 8, 8), mean=(0.5,), std=(0.5,), resize=8)


@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 2), min_size=2, max_size=30))
def test_training_rows_become_of_mean_0_and_deviation_1(rows):
    x = np.array(rows, np.float32)
    spec = fitted(TableSpec(width=2), TrainingSamples(samples=x, columns=("a", "b")))
    assert spec.columns == ("a", "b")
    y = TableProcessor(spec)(x)["vector"].astype(np.float64)
    for column in range(2):
        if np.ptp(x[:, column]) > 1e-3 * np.abs(x[:, column]).max():
            assert abs(y[:, column].mean()) < 1e-2
            assert y[:, column].std() == pytest.approx(1, abs=1e-2)
        if np.ptp(x[:, column]) == 0:
            assert np.abs(y[:, column]).max() <= np.abs(x[:, column]).max() * 1e-6


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-30, 7e8])
def test_a_column_of_one_value_is_not_scaled(value):
    """The computed deviation of equal numbers may be above 0, by their rounding."""
    mean, std = moments(np.full((1001, 1), value, np.float32))
    assert (mean[0], std[0]) == (pytest.approx(value, rel=1e-6), 1.0)


@pytest.mark.parametrize(("how", "fill"), [("mean", (4.0, 25.0, 5.0)), ("median", (3.0, 25.0, 5.0))])
def test_what_stands_for_missing_values_is_of_the_others(how, fill):
    spec = fitted(TableSpec(width=3), TrainingSamples(samples=ROWS, missing=how))
    assert spec.missing == fill
    full = fitted(TableSpec(width=3), TrainingSamples(samples=WHOLE))
    assert (spec.mean, spec.std) == (full.mean, full.std)
    np.testing.assert_array_equal(TableProcessor(spec)(ROWS)["vector"], TableProcessor(full)(WHOLE)["vector"])


def test_what_a_spec_states_stays(refused):
    stated = TableSpec(width=3, columns=("x", "y", "z"), mean=(0.0,) * 3, std=(1.0,) * 3, missing=(7.0,) * 3)
    assert fitted(stated, TrainingSamples(samples=ROWS, columns=("a", "b", "c"), missing="mean")) == stated
    learned = fitted(TableSpec(width=3), TrainingSamples(samples=WHOLE, columns=("a", "b", "c"), pretrained=True))
    assert learned == TableSpec(width=3, columns=("a", "b", "c"))
    nothing = TrainingSamples(samples=np.empty((0, 3), np.float32), missing="mean")
    assert fitted(TableSpec(width=3), nothing) == TableSpec(width=3)
    empty = np.float32([[1, np.nan, 2], [3, np.nan, 4]])
    with refused(DataError, "column 'b' has no value in any training row", hint="remove the column"):
        fitted(TableSpec(width=3, columns=("a", "b", "c")), TrainingSamples(samples=empty, missing="mean"))
    with refused(DataError, "a row has 3 numbers, the model reads 2"):
        fitted(TableSpec(width=2), TrainingSamples(samples=ROWS))


def test_rows_of_mappings_teach_the_same():
    named = [dict(zip("abc", row, strict=True)) for row in ROWS.tolist()]
    spec = TableSpec(width=3, columns=("a", "b", "c"))
    one, other = (fitted(spec, TrainingSamples(samples=rows, missing="median")) for rows in (ROWS, named))
    assert one == other


def test_the_fields_of_a_mapping_learn_each_of_their_own(registry, refused):
    spec = MappingSpec(fields={"image": IMAGE, "row": TableSpec(width=3)})
    samples = [{"image": np.zeros((8, 8), np.uint8), "row": row} for row in ROWS]
    learned = fitted_config(spec, TrainingSamples(samples=samples, missing="mean"), registry)
    assert learned.fields["image"] is IMAGE
    assert learned.fields["row"] == fitted(TableSpec(width=3), TrainingSamples(samples=ROWS, missing="mean"))
    images = MappingSpec(fields={"image": IMAGE})
    assert fitted_config(images, TrainingSamples(samples=samples), registry) is images
    assert fitted_config(IMAGE, TrainingSamples(samples=[]), registry) is IMAGE
    with refused(RecipeError, "reads image input, of which no values are missing", hint="leave out"):
        fitted_config(IMAGE, TrainingSamples(samples=[], missing="mean"), registry)


def test_arrays_of_a_mapping_that_are_ready_pass_and_lack_nothing(registry, refused):
    """Found so: beside an image that was ready, a number that was missing went on to the model as NaN."""
    row = TableSpec(width=2, mean=(1.0, 2.0), std=(2.0, 4.0), missing=(3.0, 6.0), name="row")
    reads = open_config(MappingSpec(fields={"image": IMAGE, "row": row}), {}, registry)
    made = reads([{"image": np.zeros((8, 8), np.uint8), "row": np.float32([np.nan, 10])}])
    assert made["row"].tolist() == [[1.0, 2.0]]
    again = reads.batch(made)
    assert all(again[name] is x for name, x in made.items())
    with refused(DataError, "input 'row' has non-finite values"):
        reads.batch({**made, "row": np.float32([[np.nan, 10]])})
