"""How graphs that write are measured; int8 ones beside them are in test_run_generation.py."""

from __future__ import annotations

import shutil

import pytest

from pocketzoo.core.errors import DataError
from pocketzoo.workflows.bench_generation import bench_generation


def test_a_model_agrees_with_itself_and_graphs_that_are_the_same_count_once(language_bundles, tmp_path):
    first = language_bundles["gpt2"]
    copy = shutil.copytree(first, tmp_path / "copy")
    (row,) = bench_generation([first, copy], seconds=0.0)
    assert (row.agreement, row.same_texts, row.precision, row.target) == (1.0, 1.0, "float32", "")
    assert row.tokens > 0
    assert row.ms_a_token > 0
    assert row.bytes == sum((first / name).stat().st_size for name in row.files)


def test_what_writes_nothing_gives_no_row(fitted):
    assert bench_generation([fitted.path]) == []


def test_data_that_are_no_texts_are_refused(language_bundles, refused):
    with refused(DataError):
        bench_generation([language_bundles["gpt2"]], data="digits", seconds=0.0)


@pytest.mark.parametrize("threads", [1, 2])
def test_any_number_of_threads_writes_the_same(language_bundles, threads):
    (row,) = bench_generation([language_bundles["gpt2"]], seconds=0.0, threads=threads)
    assert row.agreement == 1.0
