from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from told import Told

from pocketzoo.compress.configs import Int8Config, PruneConfig
from pocketzoo.compress.pipeline.checkpoints import checkpoints
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.core.errors import BundleError, BusyError, DataError, StorageError
from pocketzoo.core.progress import SILENT
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.data.load_data import load_data


class Killed(BaseException):
    """Stands for what ends a process in the middle, and is no error of ours."""


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def stop_after(number: int, out: Path, bundle: Path, key: str = "a", kind: type[BaseException] = Killed) -> None:
    """A run that ends after ``number`` steps."""

    def run() -> None:
        with checkpoints(out, key, SILENT) as desk:
            for i in range(1, number + 1):
                shutil.copytree(bundle, desk.folder / "made")
                assert desk.keep(i, desk.folder / "made") == desk.bundle == read_bundle(desk.folder / f"step-{i}")
                assert desk.finished == i
            (desk.folder / "trial").mkdir()
            (desk.folder / "trial" / "half").write_text("of the next")
            raise kind("stop", "next")

    with pytest.raises(kind):
        run()


def test_a_stopped_run_is_taken_up_after_its_last_step(fitted, tmp_path):
    stop_after(2, tmp_path / "out", fitted.path)
    told = Told()
    with checkpoints(tmp_path / "out", "a", told) as desk:
        assert (desk.finished, desk.bundle.manifest) == (2, fitted.manifest)
        assert names(desk.folder) == ["key", "lock", "step-2"]
        desk.deliver(desk.bundle.path)
    assert told.said == ["resuming after step 2 of an earlier run"]
    assert names(tmp_path) == ["out"]
    assert read_bundle(tmp_path / "out").manifest == fitted.manifest


def test_another_command_begins_anew(fitted, tmp_path):
    stop_after(1, tmp_path / "out", fitted.path)
    told = Told()
    with checkpoints(tmp_path / "out", "b", told) as desk:
        assert (desk.finished, desk.bundle) == (0, None)
        assert names(desk.folder) == ["key", "lock"]
    assert told.said == ["found an unfinished run of another command; starting over"]


@pytest.mark.parametrize("damage", ["a byte", "the manifest"])
def test_a_damaged_step_is_taken_again(damage, fitted, tmp_path):
    stop_after(1, tmp_path / "out", fitted.path)
    file = tmp_path / ".out.run" / "step-1" / ("model.onnx" if damage == "a byte" else "pocketzoo.json")
    file.write_bytes(b"\0" + file.read_bytes()[1:])
    with checkpoints(tmp_path / "out", "a", SILENT) as desk:
        assert (desk.finished, desk.bundle) == (0, None)


@pytest.mark.parametrize(
    ("kind", "steps", "kept"),
    [(Killed, 0, False), (Killed, 1, True), (StorageError, 1, True), (RuntimeError, 1, True), (DataError, 1, False)],
)
def test_what_is_kept_of_a_run_that_fails(kind, steps, kept, fitted, tmp_path):
    """A mistake that is mended makes another command: nothing of it can be taken up."""
    stop_after(steps, tmp_path / "out", fitted.path, kind=kind)
    assert names(tmp_path) == ([".out.run"] if kept else [])


def test_two_runs_do_not_write_the_same_bundle(tmp_path, refused):
    with checkpoints(tmp_path / "out", "a", SILENT):
        with refused(BusyError, str(tmp_path / "out"), hint="wait"), checkpoints(tmp_path / "out", "a", SILENT):
            pass
        with checkpoints(tmp_path / "other", "a", SILENT):
            pass
        assert names(tmp_path) == [".out.run"]
    assert names(tmp_path) == []


def test_the_lock_of_a_killed_run_is_free(tmp_path):
    code = (
        "import os, signal\nfrom pathlib import Path\n"
        "from pocketzoo.compress.pipeline.checkpoints import checkpoints\nfrom pocketzoo.core.progress import SILENT\n"
        f"with checkpoints(Path({str(tmp_path / 'out')!r}), 'a', SILENT):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert names(tmp_path) == [".out.run"]
    with checkpoints(tmp_path / "out", "a", SILENT):
        pass
    assert names(tmp_path) == []


def test_what_is_no_bundle_is_refused_before_anything_is_done(tmp_path, refused):
    (tmp_path / "out").write_text("mine")
    with refused(BundleError, "is not a bundle", hint="-o"), checkpoints(tmp_path / "out", "a", SILENT):
        pass
    assert names(tmp_path) == ["out"]


def test_a_finished_bundle_is_refused_before_anything_is_done_unless_told_so(fitted, small, tmp_path, refused):
    shutil.copytree(small.path, tmp_path / "out")
    finished = refused(BundleError, "is already a finished bundle", hint="--force")
    with finished, checkpoints(tmp_path / "out", "a", SILENT):
        pass
    assert names(tmp_path) == ["out"]
    with checkpoints(tmp_path / "out", "a", SILENT, force=True) as desk:
        shutil.copytree(fitted.path, desk.folder / "made")
        desk.deliver(desk.folder / "made")
    assert names(tmp_path) == ["out"]
    assert read_bundle(tmp_path / "out").manifest == fitted.manifest


def test_a_run_told_to_replace_a_bundle_goes_on_after_a_kill(fitted, small, tmp_path):
    shutil.copytree(small.path, tmp_path / "out")

    def run() -> None:
        with checkpoints(tmp_path / "out", "a", SILENT, force=True) as desk:
            shutil.copytree(fitted.path, desk.folder / "made")
            desk.keep(1, desk.folder / "made")
            raise Killed

    with pytest.raises(Killed):
        run()
    assert read_bundle(tmp_path / "out").manifest == small.manifest
    with checkpoints(tmp_path / "out", "a", SILENT, force=True) as desk:
        assert desk.finished == 1


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_and_makes_the_same(small, small_registry, tmp_path):
    """Real processes, SIGKILL at moments drawn by chance: the model, then the bundle it makes, are never half-there."""
    split = load_data("digits").split("train")
    np.savez(tmp_path / "few.npz", x=split.samples[:60], y=split.targets[:60])
    steps = [PruneConfig(ratio=0.5, granularity="weight"), Int8Config()]
    given = {
        "data": tmp_path / "few.npz",
        "steps": steps,
        "samples": 8,
        "keep_slower": True,
        "force": True,  # the first process may come to its end before it is killed
        "registry": small_registry,
    }
    start = time.perf_counter()
    whole = compress(small.path, tmp_path / "whole" / "out", **given)
    took = time.perf_counter() - start
    code = (
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parents[2])!r})\nimport smallnet\n"
        "from pocketzoo.compress.configs import Int8Config, PruneConfig\n"
        "from pocketzoo.compress.pipeline.compress_model import compress\n"
        "from pocketzoo.zoo.catalog.plugin_manager import create_manager\n"
        "from pocketzoo.zoo.catalog.registry import Registry\n"
        "registry = Registry(create_manager(points=[], extra=[smallnet]))\n"
        f"steps = [PruneConfig(ratio=0.5, granularity='weight'), Int8Config()]\nprint('ready', flush=True)\n"
        f"compress({str(small.path)!r}, sys.argv[1], data={str(tmp_path / 'few.npz')!r}, steps=steps, samples=8,"
        " keep_slower=True, force=True, registry=registry)\n"
    )
    chance = random.Random(int.from_bytes(os.urandom(4), "big"))
    place = tmp_path / "killed" / "out"
    for when in ("any moment", "after a step"):
        process = subprocess.Popen([sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        if when == "any moment":
            time.sleep(chance.uniform(0, took))
        else:
            while not (place.parent / ".out.run" / "step-1").exists() and process.poll() is None:
                time.sleep(0.01)
        process.kill()
        process.communicate()
        if place.exists():
            read_bundle(place)
    told, left = Told(), sorted(place.parent.glob(".out.run/step-*"))
    bundle = compress(small.path, place, **given, progress=told)
    assert any("resuming after step" in line for line in told.said) == bool(left)
    assert names(place.parent) == ["out"]
    for name in ("model.safetensors", "model.onnx", "model.int8.cpu.onnx"):
        assert bundle.manifest.files[name].sha256 == whole.manifest.files[name].sha256
    assert [s.plan for s in bundle.manifest.steps] == [s.plan for s in whole.manifest.steps]
