"""Whether what was computed before may be taken for an answer: ``--no-cache``, or POCKETZOO_NO_CACHE=1, says no."""

from __future__ import annotations

import os

VARIABLE = "POCKETZOO_NO_CACHE"


def caching() -> bool:
    """Whether prepared models, features, digests, engines and choices of a runtime are looked up before being made."""
    return os.environ.get(VARIABLE, "") in ("", "0")
