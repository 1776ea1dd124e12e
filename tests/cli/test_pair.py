"""Two encoders joined on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from artifactgraphs import encoders, random, start

from pocketzoo.core.errors import BundleError
from pocketzoo.zoo.artifacts.drivers import artifact_of, open_artifact
from pocketzoo.zoo.artifacts.pair_encoders import named_encoders
from pocketzoo.zoo.bundles.bundle import read_bundle


@pytest.fixture
def graphs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    encoders(tmp_path)


def test_two_files_become_a_bundle_with_their_names(run, graphs):
    done = run("pair", "image.onnx", "words.onnx", "-o", "both")
    assert (done.exit_code, done.stdout.partition(" (")[0]) == (0, "wrote both of image and words")
    shown = json.loads(run("pair", "photo=image.onnx", "text=words.onnx", "-o", "named", "--json").stdout)
    assert shown["encoders"] == ["photo", "text"]
    inputs = {"pixels": random(2, 1, 8, 8), "words": random(3, 20)}
    outputs = []
    for name in ("both", "named"):
        with open_artifact(artifact_of(read_bundle(name)), start) as runner:
            outputs.append(runner.infer(inputs))
    assert [list(each) for each in outputs] == [["image", "words", "similarity"], ["photo", "text", "similarity"]]
    assert np.array_equal(outputs[0]["similarity"], outputs[1]["similarity"])


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["image.onnx"], "a pair is of two encoders, and there are 1"),
        (["image.onnx", "words.onnx", "third=words.onnx"], "and there are 3"),
        (["a=image.onnx", "a=words.onnx"], "both encoders are called 'a'"),
        (["words.onnx", "./words.onnx"], "both encoders are called 'words'"),
        (["model=image.onnx", "words.onnx"], "an encoder cannot be called 'model'"),
        (["similarity=image.onnx", "words.onnx"], "an encoder cannot be called 'similarity'"),
        (["image.onnx", "gone.onnx"], "gone.onnx"),
        (["image.onnx", "tinynte"], "'tinynte' is neither a bundle nor a registered model"),
    ],
)
def test_what_is_no_pair_is_two_lines(models, message, run, graphs, tmp_path):
    done = run("pair", *models, "-o", "both")
    assert done.exit_code == 1
    error, hint = done.stderr.splitlines()[-2:]
    assert message in error
    assert hint.startswith("hint: ")
    assert not (tmp_path / "both").exists()


def test_what_encoders_are_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.onnx").touch()
    assert named_encoders(["a=b.onnx", "hf://org/clip@main", "x=some/words"]) == {
        "a=b": "a=b.onnx", "clip": "hf://org/clip@main", "x": "some/words",
    }  # fmt: skip
    with pytest.raises(BundleError, match="both encoders are called 'words'"):
        named_encoders(["here/words.onnx", "there/words"])
