"""Engines that do not load. One that does needs a GPU: test_engine_runner.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketzoo.core.errors import ExportError, MissingDependencyError
from pocketzoo.zoo.backends.tensorrt.identify_gpu import Gpu, find_gpu
from pocketzoo.zoo.backends.tensorrt.load_engine import (
    engine_module,
    load_engine,
    make_logger,
    short_of_memory,
    unloadable,
)


@pytest.fixture
def trt():
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed", exc_type=ImportError)


def test_a_module_that_is_not_there_is_named_with_what_installs_it(refused):
    with refused(MissingDependencyError, "'no_such_builder'", hint="no_such_builder"):
        engine_module("no_such_builder")


@pytest.mark.engine
def test_a_logger_keeps_errors_and_nothing_else(trt):
    logger = make_logger(trt)
    assert logger.last == ""
    for severity, text in ((trt.ILogger.WARNING, "w"), (trt.ILogger.ERROR, "a"), (trt.ILogger.INTERNAL_ERROR, "b")):
        logger.log(severity, text)
    assert (logger.errors, logger.last) == (["a", "b"], "b")


@pytest.mark.engine
def test_an_engine_that_is_not_there_is_named(trt, tmp_path, refused):
    with refused(ExportError, tmp_path / "m.engine", hint="pocketzoo export"):
        load_engine(tmp_path / "m.engine", trt)


@pytest.mark.engine
@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
def test_an_engine_needs_a_gpu_to_run_and_says_what_runs_here(trt, tmp_path, refused):
    (tmp_path / "m.engine").write_bytes(b"x")
    with refused(MissingDependencyError, "m.engine runs on an NVIDIA GPU", hint="the graph runs anywhere"):
        load_engine(tmp_path / "m.engine", trt)


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (
            "The engine plan file is not compatible with this version, expecting 10.3",
            "a different version",
        ),
        ("Using an engine plan file across different models of devices is not recommended", "a different GPU"),
        ("Target GPU SM 89 is not compatible: compute capability 12.0", "a different GPU"),
        ("OutOfMemory (Requested size was 4294967296 bytes.)", "more memory than is free"),
        ("Magic tag does not match", "is not an engine that"),
    ],
)
def test_what_the_runtime_says_is_told_in_words(said, what):
    gpu = Gpu(name="Orin", capability="8.7", memory=8 << 30, driver="12.6")
    error = unloadable(Path("m.engine"), "tensorrt_rtx", "1.2", gpu, said)
    assert what in error.message
    assert "m.engine" in error.message
    assert said in error.message
    assert "--shape" in error.hint or "--to tensorrt-rtx" in error.hint


@pytest.mark.parametrize(
    ("said", "short"),
    [("OutOfMemory (Requested", True), ("CUDA out of memory", True), ("", False), ("no kernel", False)],
)
def test_what_means_that_memory_is_short(said, short):
    assert short_of_memory(said) is short
