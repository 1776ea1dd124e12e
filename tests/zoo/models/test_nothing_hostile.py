"""Generated repositories that mean harm, used under an audit hook: whatever they ask for, nothing of it happens."""

from __future__ import annotations

import json
import pickle
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hostileconfigs import TIMM_HARM, TIMM_PLACES, configs
from hubmodels import TEXT_FAMILIES, VISION_FAMILIES, write_model
from safetensors.torch import load_file
from witness import witnessed

from pocketzoo.core.errors import PocketzooError
from pocketzoo.plugins import transformers as plugin
from pocketzoo.plugins.timm_settings import structure_of
from pocketzoo.plugins.transformers.modules import convert_state
from pocketzoo.zoo.catalog.specs import Repository

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
TEXTS = ("bert", "distilbert", "roberta")
FAMILIES = (*TEXTS, "vit", "resnet")


def use(folder: Path, config: dict) -> None:
    """As far as a module with its weights."""
    files = {p.name: p for p in folder.iterdir()}
    facts = Repository(repo_id="acme/tiny", commit="0" * 40, config=config, files=files,
                       sizes={name: path.stat().st_size for name, path in files.items()})  # fmt: skip
    if not plugin.refuses(facts):
        plugin.backbone(facts).build()
    convert_state(config, load_file(folder / "model.safetensors"))


def test_the_witness_sees_each_kind_of_harm(tmp_path):
    """So that an empty list means something."""
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("x")
    with witnessed(tmp_path / "in") as noted:
        (tmp_path / "secret").read_text()
        pickle.loads(pickle.dumps(Path("x")))
        subprocess.run([sys.executable, "-c", ""], check=True)
        with socket.socket() as own:
            own.connect_ex(("127.0.0.1", 1))
    assert {"open", "pickle.find_class", "subprocess.Popen", "socket.connect"} <= {event for event, _ in noted}
    with witnessed(tmp_path):
        (tmp_path / "secret").read_text()
    assert len(noted) >= 4


def cases(folder: Path, family: str) -> list[tuple[str, dict]]:
    return configs(json.loads((folder / "config.json").read_text()))


def error_of(repo: Path, config: dict) -> PocketzooError | None:
    try:
        use(repo, config)
    except PocketzooError as error:
        return error
    return None


def held(source: Path, place: Path, chosen: list[tuple[str, dict]]) -> int:
    """How many of the repositories were refused, each with an error of ours; nothing happened on the way."""
    repo = shutil.copytree(source, place / "repo")
    use(repo, json.loads((repo / "config.json").read_text()))  # what is imported on first use was read before
    refused = 0
    with witnessed(repo) as noted:
        for name, config in chosen:
            error = error_of(repo, config)
            assert error is None or (name in error.message and error.hint), name
            refused += error is not None
            assert noted == [], name
    return refused


@pytest.mark.parametrize("family", ["bert", "vit"])
def test_a_sample_of_hostile_repositories(family, tmp_path, once):
    source = once(f"nothing-{family}", lambda path: write_model(path, family))
    chosen = cases(source, family)[::12]
    assert held(source, tmp_path, chosen) == len(chosen)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_all_hostile_repositories(family, tmp_path, once):
    source = once(f"nothing-{family}", lambda path: write_model(path, family))
    chosen = cases(source, family)
    assert len({json.dumps(config, sort_keys=True) for _, config in chosen}) > 250, "of each family, all distinct"
    # Settings of other families of this kind have no effect, and are not passed on.
    assert held(source, tmp_path, chosen) >= 0.9 * len(chosen)


def test_hostile_settings_for_timm_are_refused_without_a_look_elsewhere(tmp_path):
    plain = {"architecture": "resnet10t", "num_classes": 10}
    harm = [{**plain, "model_args": {name: value}} for name, values in TIMM_HARM.items() for value in values]
    harm += [{**plain, "architecture": place} for place in TIMM_PLACES]
    assert len(harm) > 80
    with witnessed(tmp_path) as noted:
        for config in harm:
            with pytest.raises(PocketzooError):
                structure_of(config)
    assert noted == []


def test_the_families_are_those_that_ship():
    assert set(FAMILIES) <= {*TEXT_FAMILIES, *VISION_FAMILIES}
