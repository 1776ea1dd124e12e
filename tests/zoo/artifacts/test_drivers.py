"""Artifacts opened with the driver they name."""

from __future__ import annotations

import numpy as np
import pytest
from artifactgraphs import encoders, random, start

from pocketzoo.core.errors import BundleError
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.artifacts.drivers import ends, open_artifact


def test_one_graph_is_run_as_it_is(tmp_path):
    encoders(tmp_path)
    path = tmp_path / "words.onnx"
    words = {"words": random(2, 20)}
    with open_artifact(Artifact(graphs={"model": path}), start) as runner, start(path) as alone:
        assert np.array_equal(runner.infer(words)["embedding"], alone.infer(words)["embedding"])
        assert runner.signature == alone.signature
    (end,) = ends(Artifact(graphs={"model": path}))
    assert list(end.calls("model", [words], start)) == [words]


@pytest.mark.parametrize(
    ("artifact", "message", "hint"),
    [
        (Artifact(graphs={}, driver="dua"), "no driver 'dua'", "did you mean 'dual'"),
        (Artifact(graphs={"other": None}), "the driver 'single' needs a graph 'model'", "there are: other"),
        (Artifact(graphs={"encoder": None}, driver="generate"), "which tokens end a text", "again"),
    ],
)
def test_what_cannot_be_opened_says_why(artifact, message, hint):
    with pytest.raises(BundleError, match=message) as error:
        open_artifact(artifact, start)
    assert hint in error.value.hint


def test_a_graph_that_does_not_start_leaves_no_other_open(tmp_path):
    closed = []

    class Started:
        def close(self):
            closed.append(True)

    def failing(path):
        if path.name == "b":
            raise BundleError("no", "none")
        return Started()

    with pytest.raises(BundleError):
        open_artifact(Artifact(graphs={"a": tmp_path / "a", "b": tmp_path / "b"}, driver="dual"), failing)
    assert closed == [True]
