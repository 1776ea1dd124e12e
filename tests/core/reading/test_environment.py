"""Variables that the Hub's client cannot be imported with, in interpreters of their own: it reads them once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pocketzoo.core.errors import DataError, StorageError
from pocketzoo.core.files import home
from pocketzoo.core.reading.environment import is_address, wrong_variable

PULL = ["pull", "hf://org/m"]


def told(arguments: list[str], **variables: str) -> tuple[int, list[str]]:
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:1", "POCKETZOO_PATIENCE": "0.1", **variables}
    done = subprocess.run(
        [sys.executable, "-m", "pocketzoo", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_ENDPOINT", "http://["),
        ("HF_ENDPOINT", "http://127.0.0.1:99999"),
        ("HF_ENDPOINT", "nonsense"),
        ("HF_HUB_ETAG_TIMEOUT", "abc"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "1e400"),
        ("HTTPS_PROXY", "ftp://x"),
        ("ALL_PROXY", "http://\udcff"),
        ("SSL_CERT_FILE", "/nonexistent"),
        ("SSL_CERT_FILE", "/"),
    ],
)
def test_a_variable_that_is_wrong_is_named_in_two_lines(name, value):
    code, lines = told(PULL, **{name: value})
    assert (code, len(lines)) == (1, 2), lines
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint:  ")
    assert name in lines[1]


def test_what_saves_a_bundle_says_it_as_well(tmp_path):
    """The client writes model cards, so it is imported where nothing is downloaded."""
    where = ["-o", str(tmp_path / "o")]
    code, lines = told(["fit", "tinynet", "--data", "digits", "--epochs", "1", *where], HF_HUB_ETAG_TIMEOUT="abc")
    assert code == 1
    assert lines[-2:] == [
        "error: HF_HUB_ETAG_TIMEOUT is 'abc', which is not a whole number of seconds",
        "hint:  set or unset HF_HUB_ETAG_TIMEOUT",
    ]
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("value", ["HTTPS_PROXY", "https_proxy"])
def test_the_password_of_a_proxy_is_not_shown(value):
    code, lines = told(PULL, **{value: "ftp://me:secret@host"})
    assert code == 1
    assert "secret" not in lines[1]


@pytest.mark.parametrize("error", [ValueError("a bug"), DataError("no", "data"), KeyError("x"), None], ids=repr)
def test_an_error_that_is_none_of_a_variable(error):
    assert wrong_variable(error) is None


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("https://huggingface.co", True), ("http://[::1]:9", True), ("http://h:65535/p", True), ("http://h:65536", False),
     ("http://h:0", False), ("http://", False), ("", False), ("h", False), ("ftp://h", False), ("http://[", False)],
)  # fmt: skip
def test_addresses(text, is_one):
    assert is_address(text) == is_one


def test_a_home_of_nobody(monkeypatch, refused):
    monkeypatch.setenv("POCKETZOO_HOME", "~nobody-of-this-name/x")
    with refused(StorageError, "~nobody-of-this-name/x", hint="POCKETZOO_HOME"):
        home()
