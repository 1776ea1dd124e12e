from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from torch import nn

from pocketzoo.compress.samples import synthetic as module
from pocketzoo.compress.samples.synthetic import ARRAYS, JUDGING, NORMS, SHAPES, TOKENS, synthetic_data
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.processor_configs import ArraysSpec
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.catalog.specs import InputSpec, TextSpec
from pocketzoo.zoo.data.batches import Batches
from pocketzoo.zoo.data.processors.open_processor import as_processor

IMAGES = InputSpec(shape=("batch", 3, 16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.25), resize=16)
TEXTS = TextSpec(vocabulary=50, pad=0, max_length=16, mask="attention_mask")
STATES = ArraysSpec(inputs=(TensorSpec(name="state", shape=("batch", 5)),))
NET = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))

ADDED = helper.make_model(
    helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ("batch", 20))],
        [helper.make_tensor_value_info("y", TensorProto.INT64, ("batch", 20))],
    )
)  # fmt: skip


def asked():
    pytest.fail("it was asked for, and nothing needs it")


def made(reads, count=10, net=None, graph=asked):
    return synthetic_data(as_processor(reads), count, graph, lambda: net)


@pytest.mark.parametrize(
    ("reads", "net", "of"),
    [(IMAGES, NET, NORMS), (IMAGES, nn.Conv2d(3, 4, 3), SHAPES), (IMAGES, None, SHAPES), (TEXTS, None, TOKENS)],
)
def test_samples_are_what_the_processor_reads_and_say_what_they_were_made_of(reads, net, of):
    data = made(reads, net=net)
    assert data.synthetic == of
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [10, JUDGING, JUDGING]
    arrays = [next(iter(Batches(data.split(name), reads, size=10)))[0] for name in ("train", "val", "test")]
    names = [tensor.name for tensor in as_processor(reads).inputs]
    for batch in arrays:
        assert list(batch) == names
        assert len(next(iter(batch.values()))) == 10
    assert not np.array_equal(*(next(iter(batch.values())) for batch in arrays[1:]))
    assert data.digest() == made(reads, net=net).digest()


def test_images_lie_in_the_range_that_the_input_states():
    x = next(iter(Batches(made(IMAGES).split("train"), IMAGES)))[0]["image"]
    mean, std = (np.reshape(each, (3, 1, 1)) for each in (IMAGES.mean, IMAGES.std))
    pixels = x * std + mean
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6
    assert np.ptp(pixels, axis=(0, 2, 3)).min() > 0.5


def test_no_more_are_made_than_what_more_of_them_would_be_worth():
    assert len(made(IMAGES, 1000).split("train")) == module.CALIBRATING


def test_of_arrays_nothing_is_known_but_their_form():
    state = made(STATES, graph=asked)
    assert state.synthetic == ARRAYS


def test_no_sample_is_of_a_source_that_could_be_left_out():
    data = made(IMAGES)
    assert {data.split(name).groups.count for name in ("train", "val", "test")} == {1}


def arrays_of(kind, *shape):
    return ArraysSpec(inputs=(TensorSpec(name="x", shape=("batch", *shape), dtype=kind),))


@pytest.mark.parametrize("shape", [(3, 16, 16), (16, 16, 3)])
def test_images_of_bytes_are_of_all_that_a_byte_holds_whichever_axis_is_that_of_channels(shape):
    data = made(arrays_of("uint8", *shape))
    x = next(iter(Batches(data.split("train"), arrays_of("uint8", *shape))))[0]["x"]
    assert (data.synthetic, x.shape[1:], x.dtype) == (SHAPES, shape, np.uint8)
    assert x.min() < 30
    assert x.max() > 225
    first = np.moveaxis(x, shape.index(3) + 1, 1).astype(float)
    assert np.abs(np.diff(first, axis=2)).mean() < 0.6 * first.std(), "neighbors are alike, as those of pixels are"


@pytest.mark.parametrize(("kind", "least", "most"), [("uint8", 0, 255), ("int8", -128, 127), ("bool", 0, 1)])
def test_arrays_of_bytes_have_all_values_of_their_type(kind, least, most):
    data = made(arrays_of(kind, 2000), graph=lambda: ADDED)
    assert data.synthetic == ARRAYS
    x = next(iter(Batches(data.split("train"), arrays_of(kind, 2000))))[0]["x"]
    assert (int(x.min()), int(x.max())) == (least, most)


def test_whole_numbers_of_which_nothing_tells_how_large_they_are_are_refused():
    with pytest.raises(DataError, match="which whole numbers its input 'x' takes") as error:
        made(arrays_of("int64", 20), graph=lambda: ADDED)
    assert "--data" in error.value.hint
