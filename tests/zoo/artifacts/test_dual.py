"""Two encoders of one space, exported from torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from artifactgraphs import encoders, random, start
from torch.nn.functional import normalize

from pocketzoo.core.errors import BundleError, DataError
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.artifacts.drivers import ends, open_artifact
from pocketzoo.zoo.artifacts.dual import input_names
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    modules = encoders(folder)
    graphs = {name: folder / f"{name}.onnx" for name in modules}
    return modules, Artifact(graphs=graphs, driver="dual")


def test_embeddings_and_cosines_are_torchs(pair):
    modules, artifact = pair
    pixels, words = random(3, 1, 8, 8), random(5, 20)
    with open_artifact(artifact, start) as runner:
        outputs = runner.infer({"pixels": pixels, "words": words})
    with torch.no_grad():
        first = normalize(modules["image"](torch.tensor(pixels))[0], dim=-1).numpy()
        second = normalize(modules["words"](torch.tensor(words))[0], dim=-1).numpy()
    np.testing.assert_allclose(outputs["image"], first, atol=1e-6)
    np.testing.assert_allclose(outputs["words"], second, atol=1e-6)
    np.testing.assert_allclose(outputs["similarity"], first @ second.T, atol=1e-6)
    assert list(outputs) == ["image", "words", "similarity"]


def test_one_encoder_runs_alone(pair):
    _, artifact = pair
    with open_artifact(artifact, start) as runner:
        both = runner.infer({"pixels": random(2, 1, 8, 8), "words": random(2, 20)})
        alone = runner.infer({"words": random(2, 20)})
    assert list(alone) == ["words"]
    assert np.array_equal(alone["words"], both["words"])


def test_the_signature_has_all_inputs_and_outputs(pair):
    _, artifact = pair
    with open_artifact(artifact, start) as runner:
        signature = runner.signature
    assert [spec.name for spec in signature.inputs] == ["pixels", "words"]
    assert [spec.name for spec in signature.outputs] == ["image", "words", "similarity"]
    similarity = signature.output("similarity").shape
    assert similarity[0] != similarity[1], "any number of one with any number of the other"


def test_each_encoder_is_calibrated_on_its_own_inputs(pair):
    _, artifact = pair
    samples = [{"pixels": random(2, 1, 8, 8), "words": random(2, 20)}, {"words": random(4, 20)}]
    (end,) = ends(artifact)
    for encoder, name, sizes in (("image", "pixels", [2]), ("words", "words", [2, 4])):
        calls = end.calls(encoder, samples, start)
        for _ in range(2):
            assert [list(feed) for feed in calls] == [[name]] * len(sizes)
            assert [len(feed[name]) for feed in calls] == sizes


@pytest.mark.parametrize(
    ("inputs", "message"),
    [({}, "there are no inputs"), ({"sound": random(1, 2)}, "no input 'sound'")],
)
def test_inputs_of_no_encoder_are_refused(pair, inputs, message):
    _, artifact = pair
    with open_artifact(artifact, start) as runner, pytest.raises(DataError, match=message) as error:
        runner.infer(inputs)
    assert "pixels" in error.value.hint


def test_other_than_two_graphs_are_refused(pair):
    _, artifact = pair
    one = Artifact(graphs=dict(list(artifact.graphs.items())[:1]), driver="dual")
    with pytest.raises(BundleError, match="runs two graphs, and there are 1"):
        open_artifact(one, start)


class Given:
    """A runner of a signature alone."""

    closed = False

    def __init__(self, *channels):
        self.signature = ModelSignature(
            inputs=(TensorSpec(name="x", shape=("batch", 2)),),
            outputs=tuple(TensorSpec(name=f"y{i}", shape=("batch", *c)) for i, c in enumerate(channels)),
        )

    def close(self):
        self.closed = True


def test_what_is_not_of_one_space_is_refused_and_closed(tmp_path):
    graphs = {name: tmp_path / name for name in ("a", "b")}
    for runners, message in (
        ({"a": Given((3,)), "b": Given((4,))}, "'a' have 3 channels, those of 'b' 4"),
        ({"a": Given((3,)), "b": Given((4, 4))}, "'b' outputs no embedding"),
    ):
        with pytest.raises(BundleError, match=message):
            open_artifact(Artifact(graphs=graphs, driver="dual"), lambda path, runners=runners: runners[path.name])
        assert all(runner.closed for runner in runners.values())


def test_an_input_that_both_have_is_called_by_its_encoder():
    signature = Given((3,)).signature
    other = ModelSignature(inputs=(*signature.inputs, TensorSpec(name="y", shape=("batch",))), outputs=())
    assert input_names({"a": signature, "b": other}) == {"a": {"x": "a.x"}, "b": {"x": "b.x", "y": "y"}}
