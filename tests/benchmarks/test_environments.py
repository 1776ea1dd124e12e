"""Environments for other tools: made once, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))

from environments import InstallError, environment  # noqa: E402


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def test_environment_is_made_once_and_holds_what_was_asked(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path, "peer", "1.0")
    python = environment("peer", [str(wheel)])
    said = subprocess.run([python, "-c", "import peer; print(peer.V)"], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "1.0"
    (python.parent / "kept").touch()
    assert environment("peer", [str(wheel)]) == python
    assert (python.parent / "kept").exists(), "it was made again"


def test_half_made_environment_is_made_again(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path, "peer", "1.0")
    python = environment("peer", [str(wheel)])
    (python.parents[1] / "installed").unlink()  # as after a kill
    (python.parent / "stale").touch()
    assert environment("peer", [str(wheel)]) == python
    assert not (python.parent / "stale").exists()


def test_other_requirements_are_another_environment(tmp_path: Path) -> None:
    first = environment("peer", [str(_wheel(tmp_path, "peer", "1.0"))])
    assert environment("peer", [str(_wheel(tmp_path, "peer", "2.0"))]) != first


def test_reason_is_the_installers(tmp_path: Path) -> None:
    for _ in range(2):  # a failed one leaves nothing that would pass for an environment
        with pytest.raises(InstallError, match="No matching distribution found for nosuchpeer==1"):
            environment("peer", ["nosuchpeer==1"])


def _wheel(folder: Path, name: str, version: str) -> Path:
    """The smallest wheel there is."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", f"V = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path
