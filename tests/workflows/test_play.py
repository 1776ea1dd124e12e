"""What ``play`` takes from a bundle that anyone may have written."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pocketzoo
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.bundles.manifest import MANIFEST

AGENT = Path(__file__).parents[1] / "frozen" / "format2" / "agent" / "bundle"


def test_no_module_that_a_bundle_names_is_imported(tmp_path, monkeypatch, refused):
    (tmp_path / "imported_by_name.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(AGENT, tmp_path / "agent")
    manifest = json.loads((AGENT / MANIFEST).read_text("utf8"))
    manifest["provenance"]["environment"] = "imported_by_name:Thing-v0"
    (tmp_path / "agent" / MANIFEST).write_text(json.dumps(manifest))
    with refused(DataError, "imported_by_name:Thing-v0", hint="if you trust it"):
        pocketzoo.play(tmp_path / "agent")
    assert "imported_by_name" not in sys.modules
