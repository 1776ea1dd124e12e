"""Failures of conformance checks: what is wrong, and what the plugin's author should change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest

from pocketzoo.core.errors import PocketzooError, message_of


def wrong(what: str, change: str) -> NoReturn:
    """Fail, in two lines."""
    pytest.fail(f"{what}\nchange: {change}", pytrace=False)


@contextmanager
def blaming(what: str, change: str) -> Iterator[None]:
    """Turn any error of the plugin's code into a failed check; what is not an error of ours keeps its traceback."""
    failure: PocketzooError | None = None
    try:
        yield
    except PocketzooError as error:
        failure = error
    except Exception as error:
        raise pytest.fail.Exception(f"{what}: {type(error).__name__}: {message_of(error)}\nchange: {change}") from error
    if failure:  # raised out here, where pytest does not show what it replaces
        wrong(f"{what}: {failure.message}", f"{change} ({failure.hint})" if failure.hint else change)
