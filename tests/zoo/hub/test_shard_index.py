"""Weights in several files: the tensors of one file, or one typed error."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from pocketzoo.core.errors import UnsafeFileError, UnsupportedModelError
from pocketzoo.zoo.hub.shard_index import INDEX, read_index, shard_names
from pocketzoo.zoo.hub.weights import read_shards

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
STATE = {"a.weight": torch.rand(2, 3), "a.bias": torch.rand(2), "b.weight": torch.rand(4)}
WHERE = {"a.weight": ONE, "a.bias": ONE, "b.weight": TWO}


@pytest.fixture
def written(tmp_path):
    """Write shards and an index into a folder: ``written(where, held)``; returns what read_shards takes."""

    def write(where=WHERE, held=None):
        held = held or {shard: [k for k, s in WHERE.items() if s == shard] for shard in (ONE, TWO)}
        for name, keys in held.items():
            save_file({k: STATE[k] for k in keys}, tmp_path / name)
        index = where if isinstance(where, str) else json.dumps({"metadata": {}, "weight_map": where})
        (tmp_path / INDEX).write_text(index)
        return tmp_path / INDEX, {name: tmp_path / name for name in held}

    return write


def test_the_shards_together_are_the_model(written):
    state = read_shards(*written())
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[k], STATE[k]) for k in STATE)


@pytest.mark.parametrize(
    ("where", "held", "kind", "text"),
    [
        ({**WHERE, "c": "model-00003-of-00003.safetensors"}, None, UnsupportedModelError, "repository does not have"),
        ({**WHERE, "c": "../../secret.safetensors"}, None, UnsafeFileError, "outside the repository"),
        ({**WHERE, "c": "/etc/passwd"}, None, UnsafeFileError, "outside the repository"),
        ({**WHERE, "c": TWO}, None, UnsupportedModelError, f"{TWO} lacks c"),
        ({"a.weight": ONE, "b.weight": TWO}, None, UnsupportedModelError, "holds a.bias, which by the index is"),
        (WHERE, {ONE: ["a.weight", "a.bias", "b.weight"], TWO: ["b.weight"]}, UnsupportedModelError,
         f"{ONE} holds b.weight, which by the index is in {TWO}"),
        ('{"weight_map": {"a": "x", "a": "y"}}', None, UnsafeFileError, "'a' appears twice"),
        ('{"weight_map": ["a"]}', None, UnsafeFileError, "not a table of files"),
        ('{"weight_map": {"a": 3}}', None, UnsafeFileError, "not a table of files"),
        ("{}", None, UnsafeFileError, "not an index of shards"),
        ("[" * 100_000, None, UnsafeFileError, "not an index of shards"),
        ("\x80", None, UnsafeFileError, "not an index of shards"),
    ],
    ids=lambda v: str(v)[:30],
)  # fmt: skip
def test_an_index_that_does_not_fit_its_shards(written, refused, where, held, kind, text):
    index, shards = written(where, held)
    with refused(kind, text):
        read_shards(index, shards)


def test_a_shard_that_is_a_pickle_is_refused(written, refused):
    index, shards = written()
    shards[TWO].write_bytes(pickle.dumps(STATE))
    with refused(UnsafeFileError, f"{TWO} is not a safetensors file"):
        read_shards(index, shards)


def test_shards_are_known_by_their_names():
    assert shard_names([TWO, "other.safetensors", ONE, INDEX, "model.safetensors"]) == (ONE, TWO)


def test_an_index_is_checked_without_reading_the_shards(written):
    index, _ = written()
    assert read_index(index, [ONE, TWO]) == WHERE


def test_only_what_is_called_so_is_a_shard():
    names = [
        "model-1.safetensors",
        "model-2.bin",
        "x/model-1.safetensors",
        "xmodel-1.safetensors",
        "model-.safetensors",
    ]
    assert shard_names(names) == ("model-.safetensors", "model-1.safetensors")
    assert shard_names([]) == ()


def test_what_is_wrong_with_an_index_is_said_with_what_to_do(tmp_path, refused):
    path = tmp_path / INDEX
    distrust = "do not use this model; tell its author"
    for text, kind, message, hint in [
        ("{}", UnsafeFileError, f"{INDEX} is not an index of shards: 'weight_map'", distrust),
        ('{"weight_map": {"a": 3}}', UnsafeFileError,
         f"{INDEX} is not an index of shards: its weight_map is not a table of files", distrust),
        ('{"weight_map": {"a": "b", "c": "d", "a": "e"}}', UnsafeFileError,
         f"{INDEX} is not an index of shards: 'a' appears twice", distrust),
        ('{"weight_map": {"a": "../x"}}', UnsafeFileError, f"{INDEX} names a file outside the repository: '../x'",
         distrust),
        ('{"weight_map": {"a": "one", "b": "two"}}', UnsupportedModelError,
         f"{INDEX} names 'two', which the repository does not have", "pull another revision, or tell its author"),
    ]:  # fmt: skip
        path.write_text(text)
        with refused(kind, hint=hint) as caught:
            read_index(path, ["one"])
        assert (caught.value.message, caught.value.hint) == (message, hint)
    path.write_text('{"weight_map": {}}')
    assert read_index(path, ["one"]) == {}
