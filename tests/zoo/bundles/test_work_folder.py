"""Where something may be written: not in place of a bundle's own files, nor under a name that says something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pocketzoo.core.errors import ExportError
from pocketzoo.deploy.export import export
from pocketzoo.reports.html_page import check_drawing
from pocketzoo.reports.profile_page import check_page
from pocketzoo.reports.report import report
from pocketzoo.train.agents.double_dqn import fit_agent
from pocketzoo.train.contact_sheet import preview
from pocketzoo.train.fit import fit
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle
from pocketzoo.zoo.bundles.signing import sign
from pocketzoo.zoo.bundles.work_folder import check_outside
from pocketzoo.zoo.models.pull import lock

WRITERS: dict[str, tuple[str, str, Callable[[Path, Path], Any]]] = {
    "sign": (".json", ".onnx", lambda bundle, place: sign(bundle, key="key", out=place)),
    "export": (".onnx", ".safetensors", lambda bundle, place: export(bundle, to="onnx", out=place)),
    "report": (".html", ".md", lambda bundle, place: report([bundle], place)),
    "a plot": (".svg", ".png", lambda bundle, place: check_drawing(place)),
    "profile": (".html", ".onnx", lambda bundle, place: check_page(place)),
    "preview": (".png", ".json", lambda bundle, place: preview("digits", place)),
    "states": (".npz", ".csv", lambda bundle, place: fit_agent("CartPole-v1", bundle.parent / "new", states=place)),
    "lock": (".lock", ".json", lambda bundle, place: lock(["hf://a/b"], lock=place)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_written_over_what_a_bundle_lists(name, fitted_copy, refused, tmp_path):
    pytest.importorskip("model_signing") if name == "sign" else None
    suffix, _, write = WRITERS[name]
    bundle: Bundle = fitted_copy
    (tmp_path / "link").symlink_to(bundle.path)
    for folder in (bundle.path, tmp_path / "link"):
        place = folder / f"pocketzoo{suffix}"
        with refused(ExportError, f"{place} is inside a bundle"):
            write(bundle.path, place)
    assert read_bundle(bundle.path).manifest == bundle.manifest


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_lands_under_a_name_that_says_something_else(name, fitted_copy, refused, tmp_path):
    pytest.importorskip("model_signing") if name == "sign" else None
    _, other, write = WRITERS[name]
    place = tmp_path / f"x{other}"
    with pytest.raises(ExportError, match=r"ends in|an \.svg or \.html file"):
        write(fitted_copy.path, place)
    assert not place.exists()


def test_a_folder_of_events_is_not_called_as_a_file(tmp_path, refused):
    with refused(ExportError, "ends in .png", hint="call it"):
        fit("tinynet", tmp_path / "new", data="digits", log=tmp_path / "x.png")
    assert not (tmp_path / "new").exists()


def test_elsewhere_is_fine(fitted_copy, tmp_path):
    for place in (tmp_path / "x.json", fitted_copy.path / "sub" / "x.json", Path("x.json")):
        check_outside(place)
