"""An engine is found again if nothing that decides what it is differs, and only with the bytes it had."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import replace

import pytest

from pocketzoo.core.errors import RecipeError
from pocketzoo.plugins.targets import pocketzoo_targets
from pocketzoo.zoo.backends.tensorrt.engine_cache import EngineCache, engine_key
from pocketzoo.zoo.backends.tensorrt.identify_gpu import Gpu
from pocketzoo.zoo.catalog.engine_options import EngineOptions, read_sizes
from pocketzoo.zoo.hub.store import Store

RTX = next(t for t in pocketzoo_targets() if t.name == "tensorrt-rtx")
GPU = Gpu(name="RTX", capability="8.9", memory=1 << 33, driver="13.0")
ENGINE = memoryview(b"an engine")


def test_every_fact_makes_another_key(tmp_path):
    one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
    one.write_bytes(b"one")
    two.write_bytes(b"two")
    options = EngineOptions()
    keys = [
        engine_key(one, RTX, "1.7", None, options),
        engine_key(two, RTX, "1.7", None, options),
        engine_key(one, replace(RTX, name="other"), "1.7", None, options),
        engine_key(one, RTX, "1.8", None, options),
        engine_key(one, RTX, "1.7", GPU, options),
        engine_key(one, RTX, "1.7", replace(GPU, capability="12.0"), options),
        engine_key(one, RTX, "1.7", None, replace(options, stripped=True)),
        engine_key(one, RTX, "1.7", None, replace(options, shapes={"batch": (1, 1, 1)})),
    ]
    assert len(set(keys)) == len(keys)
    two.write_bytes(b"one")
    assert engine_key(two, RTX, "1.7", None, options) == keys[0]


def test_what_was_kept_is_found(tmp_path):
    cache = EngineCache(tmp_path / "c")
    assert cache.find("key") is None
    cache.keep("key", ENGINE)
    assert cache.find("key").read_bytes() == b"an engine"
    assert cache.find("other") is None


@pytest.mark.parametrize("damage", ["bytes", "note", "link"])
def test_what_is_not_what_was_kept_is_not_taken(tmp_path, damage):
    cache = EngineCache(tmp_path / "c")
    cache.keep("key", ENGINE)
    path = cache.find("key")
    if damage == "bytes":
        path.write_bytes(b"other")
    elif damage == "note":
        path.with_suffix(".sha256").write_text("0" * 64)
    else:
        elsewhere = tmp_path / "elsewhere"
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
    assert cache.find("key") is None
    assert not os.path.lexists(path)


def test_pruning_the_store_removes_engines_nobody_took_for_a_month(tmp_path):
    store = Store(tmp_path)
    cache = EngineCache(store.root / "engines")
    for name in ("old", "new", "taken"):
        cache.keep(name, ENGINE)
    long_ago = time.time() - 40 * 24 * 3600
    for name in ("old", "taken"):
        os.utime(store.root / "engines" / f"{name}.engine", (long_ago, long_ago))
    assert cache.find("taken")
    assert store.prune() == len(ENGINE) + 64
    assert [cache.find(name) is not None for name in ("old", "new", "taken")] == [False, True, True]
    assert store.verify() == []


@pytest.mark.parametrize(("text", "sizes"), [("8", (8, 8, 8)), ("1:8:32", (1, 8, 32)), ("0:2:8", (0, 2, 8))])
def test_lengths_are_read(text, sizes):
    assert read_sizes(text) == sizes
    assert EngineOptions(shapes={"batch": sizes}).sizes("batch") == sizes


@pytest.mark.parametrize("text", ["", "a", "1:2", "1:2:3:4", "1.5"])
def test_what_is_no_length_is_refused(text):
    with pytest.raises(ValueError, match=r"invalid|unpack"):
        read_sizes(text)


@pytest.mark.parametrize("sizes", [(2, 1, 3), (1, 3, 2), (-1, 1, 1), (0, 0, 0)])
def test_lengths_out_of_order_are_refused(sizes, refused):
    with refused(RecipeError, "the sizes of batch cannot be", hint="in this order"):
        EngineOptions(shapes={"batch": sizes})
    with refused(RecipeError, "the sizes of an axis cannot be"):
        EngineOptions(others=sizes)


def test_the_lengths_of_an_axis_are_the_closest_that_are_given():
    options = EngineOptions(shapes={"a": (1, 1, 1)}, usual={"a": (2, 2, 2), "b": (3, 3, 3)})
    assert [options.sizes(name)[0] for name in ("a", "b", "c")] == [1, 3, 1]
    assert options.sizes("c") == options.others


def test_times_are_kept_for_one_version_on_one_gpu(tmp_path):
    cache = EngineCache(tmp_path / "c")
    places = [
        cache.timings("tensorrt", "10.0", GPU),
        cache.timings("tensorrt_rtx", "10.0", GPU),
        cache.timings("tensorrt", "10.1", GPU),
        cache.timings("tensorrt", "10.0", None),
        cache.timings("tensorrt", "10.0", replace(GPU, capability="12.0")),
        cache.timings("tensorrt", "10.0", replace(GPU, name="other")),
    ]
    assert len(set(places)) == len(places)
    assert {(place.parent, place.suffix) for place in places} == {(cache.root, ".timings")}
    assert cache.timings("tensorrt", "10.0", replace(GPU, memory=1, driver="1")) == places[0]


def test_only_what_was_built_here_is_known(tmp_path):
    cache = EngineCache(tmp_path / "c")
    cache.keep("key", ENGINE)
    assert cache.built(hashlib.sha256(ENGINE).hexdigest())
    assert not cache.built("0" * 64)
    assert EngineCache().root == Store().root / "engines"


@pytest.mark.parametrize(("days", "there"), [(29, True), (31, False)])
def test_a_month_is_thirty_days(days, there, tmp_path):
    cache = EngineCache(Store(tmp_path).root / "engines")
    cache.keep("key", ENGINE)
    then = time.time() - days * 24 * 3600
    os.utime(cache.root / "key.engine", (then, then))
    Store(tmp_path).prune()
    assert (cache.find("key") is not None) == there


def test_what_options_are_when_nothing_is_said():
    options = EngineOptions()
    assert (options.shapes, options.usual, options.others) == ({}, {}, (1, 8, 32))
    assert (options.version_compatible, options.hardware_compatible, options.stripped) == (False, False, False)
    assert (options.dla, options.workspace) == (None, 0)
    assert (EngineOptions(dla=0).dla, EngineOptions(workspace=1).workspace) == (0, 1)
    assert EngineOptions(others=(0, 0, 1)).sizes("any") == (0, 0, 1)


@pytest.mark.parametrize(("name", "hint"), [("workspace", "0 or more MiB"), ("dla", "the number of a core, from 0")])
def test_options_below_zero_are_refused(name, hint, refused):
    with refused(RecipeError, f"{name} cannot be -1", hint=hint):
        EngineOptions(**{name: -1})
