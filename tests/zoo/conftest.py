"""What the tests of the zoo share: a file system that fills up, and a tokenizer."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What a backbone of texts brings along: a tokenizer that knows WORDS."""
    from hubmodels import write_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return {"tokenizer.json": folder / "tokenizer.json"}
