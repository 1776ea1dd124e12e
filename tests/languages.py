"""Tiny language models on a Hub of this machine, for a whole module of tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hubmodels import write_headed
from huggingface_hub import close_session
from localhub import HubState, LocalHub, point_at

from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry

SAYINGS = ("the model is small and fast", "an edge device reads texts", "it reads images or texts")
FAMILIES = ("gpt2", "llama", "t5")


@dataclass(frozen=True)
class Languages:
    """Repositories ``hf://acme/FAMILY``, the library's own models of them, and a table of texts."""

    hub: HubState
    models: dict[str, Any]
    texts: Path
    registry: Registry


@contextmanager
def languages(folder: Path, families: tuple[str, ...] = FAMILIES) -> Iterator[Languages]:
    """The Hub with them, and an empty home; both are this process's until it ends."""
    with LocalHub(folder / "hub") as hub, pytest.MonkeyPatch.context() as patch:
        models = {}
        for family in families:
            task = "answer" if family == "t5" else "language"
            models[family] = write_headed(folder / family, family, task)
            hub.state.add_folder(f"acme/{family}", folder / family)
        point_at(hub, patch, folder / "hf")
        patch.setenv("POCKETZOO_HOME", str(folder / "home"))
        texts = folder / "sayings.txt"
        texts.write_text("\n".join(SAYINGS * 10))
        yield Languages(hub.state, models, texts, Registry(create_manager(points=[])))
        close_session()
