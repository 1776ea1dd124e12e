"""Every mistake a user can make ends in two lines: what, and what next. Nothing is half-written, nothing is lost."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import numpy as np
import pytest

import pocketzoo
from pocketzoo.core import errors
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.bundles.manifest import MANIFEST

FILES = ["README.md", "model.onnx", "model.safetensors", "model.int8.cpu.onnx", "model.int8.tensorrt-rtx.onnx"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def check(result, *message: object, hint: str = "", progress: bool = False) -> None:
    """Two lines and exit 1. With ``progress``, lines about what was done before may come first."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) >= 2
    first, second = lines[-2:]
    assert first.startswith("error: ")
    assert second.startswith("hint:  ")
    assert len(second) > len("hint:  ")
    for part in message:
        assert str(part) in first, (part, first)
    assert hint in second, (hint, second)
    if progress:
        assert all(line.startswith("  ") for line in lines[:-2]), lines
    else:
        assert len(lines) == 2, lines
    assert "Traceback" not in result.stderr


@pytest.fixture
def place(tmp_path, monkeypatch, compressed):
    """An empty current folder with a bundle "out" in it; nothing in it may change."""
    folder = tmp_path / "place"
    folder.mkdir()
    shutil.copytree(compressed.path, folder / "out")
    monkeypatch.chdir(folder)
    before = contents(folder)
    yield folder
    assert contents(folder) == before
    assert [p.name for p in folder.iterdir()] == ["out"]


# -- missing files and unknown names


def test_missing_files(run, place, fitted, few, digit):
    gone = place.parent / "gone"
    for arguments, message in [
        (["info", gone], f"there is no bundle at {gone}"),
        (["verify", gone], f"there is no bundle at {gone}"),
        (["eval", gone, "--data", few], f"there is no bundle at {gone}"),
        (["compress", gone, "-o", "out", "--force", "--prune", 0.3, "--data", few], f"there is no bundle at {gone}"),
        (["export", gone, "-o", "m.onnx"], f"there is no bundle at {gone}"),
        (["bench", fitted.path, gone], f"there is no bundle at {gone}"),
        (["predict", gone, digit], f"there is no bundle at {gone}"),
        (["report", gone, "-o", "r.html"], f"there is no bundle at {gone}"),
        (["fit", "tinynet", "--data", gone, "-o", "out", "--force"], f"there is no data set at {gone}"),
        (["fit", "tinynet", "--data", f"{gone}.npz", "-o", "out", "--force"], f"there is no data set at {gone}.npz"),
        (["eval", fitted.path, "--data", gone], f"there is no data set at {gone}"),
        (["bench", fitted.path, "--data", gone], f"there is no data set at {gone}"),
        (
            ["compress", fitted.path, "-o", "out", "--force", "--prune", 0.3, "--data", gone],
            f"there is no data set at {gone}",
        ),
        (["compress", fitted.path, "-o", "out", "--force", "-r", gone, "--data", few], f"there is no recipe {gone}"),
        (["predict", fitted.path, gone], f"there is no image {gone}"),
        (["predict", fitted.path, digit, gone], f"there is no image {gone}"),
    ]:
        check(run(*arguments), message)


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ("info tinynte", "'tinynte' is neither a bundle nor a registered name", "did you mean 'tinynet'?"),
        ("info low_rank", "'low_rank'", "did you mean 'low-rank'?"),
        ("list nonsense*", "nothing is registered that matches 'nonsense*'", "pocketzoo list"),
        ("fit tinynte --data {few} -o out --force", "no backbone is called 'tinynte'", "did you mean 'tinynet'?"),
        ("fit tinynet --head liner --data {few} -o out --force", "no head is called 'liner'", "did you mean 'linear'?"),
        (
            "fit tinynet --cut stage2 --data {few} -o out --force",
            "tinynet has no cut 'stage2'",
            "did you mean 'stage1'?",
        ),
        ("fit tinynet --data digit -o out --force", "no dataset is called 'digit'", "did you mean 'digits'?"),
        (
            "fit {fitted} --data {few} -o out --force",
            "is a bundle; fit takes a backbone",
            "pocketzoo list --kind backbone",
        ),
        ("eval tinynte --data {few}", "'tinynte' is neither a bundle nor a registered model", "'tinynet'"),
        ("eval {fitted} --data digts", "no dataset is called 'digts'", "'digits'"),
        ("eval {fitted} --data {few} --target cup", "no target is called 'cup'", "'cpu'"),
        ("compress tinynte -o out --force --int8 --data {few}", "'tinynte'", "'tinynet'"),
        (
            "compress {fitted} -o out --force --int8 --data {few} --target tensort",
            "no target is called 'tensort'",
            "tensorrt",
        ),
        ("export tinynte -o m.onnx", "'tinynte'", "'tinynet'"),
        ("export {fitted} --to onx -o m.onnx", "no exporter is called 'onx'", "did you mean 'onnx'?"),
        ("export {fitted} --target cup -o m.onnx", "no target is called 'cup'", "'cpu'"),
        ("bench tinynte", "'tinynte'", "'tinynet'"),
        ("predict tinynte {digit}", "'tinynte'", "'tinynet'"),
        ("predict {fitted} {digit} --target rtx", "no target is called 'rtx'", "tensorrt-rtx"),
        ("report tinynte -o r.html", "'tinynte'", ""),
    ],
)
def test_unknown_names(arguments, message, hint, run, place, fitted, few, digit):
    words = arguments.format(fitted=fitted.path, few=few, digit=digit).split()
    check(run(*words), message, hint=hint)


# -- data


def test_an_empty_class_folder(run, place, fitted, photos, tmp_path):
    folder = photos(tmp_path / "data", {"cat": 5, "dog": 5})
    (folder / "eel").mkdir()
    for arguments in (
        ["fit", "tinynet", "--data", folder, "-o", "out", "--force"],
        ["eval", fitted.path, "--data", folder],
        ["compress", fitted.path, "-o", "out", "--force", "--int8", "--data", folder],
        ["bench", fitted.path, "--data", folder],
    ):
        check(run(*arguments), f"the class folder {folder / 'eel'} has no samples", hint="add some")


def test_an_empty_folder(run, place, tmp_path):
    (tmp_path / "nothing").mkdir()
    check(run("fit", "tinynet", "--data", tmp_path / "nothing", "-o", "out", "--force"), "has no samples", hint=".png")


def test_one_class_is_not_enough(run, place, photos, tmp_path):
    folder = photos(tmp_path / "data", {"cat": 9})
    check(run("fit", "tinynet", "--data", folder, "-o", "out", "--force"), "has one class", hint="two or more")


@pytest.fixture
def spoilt(photos, tmp_path) -> tuple[Path, list[Path]]:
    """Ten class folders of five images; one image of each split cannot be read."""
    from pocketzoo.zoo.data.load_data import load_data

    folder = photos(tmp_path / "data", {str(i): 5 for i in range(10)})
    data = load_data(folder)
    bad = [data.split(name).samples[2] for name in ("train", "val", "test")]
    for path in bad:
        path.write_bytes(b"\x89PNG\r\n\x1a\nthis is not an image")
    return folder, bad


def test_an_unreadable_image_is_named(run, place, fitted, spoilt):
    folder, (train, _, test) = spoilt
    fit = run("fit", "tinynet", "--data", folder, "-o", "out", "--force")
    check(fit, train, "cannot read the image", hint="--skip-bad", progress=True)
    evaluate = run("eval", fitted.path, "--data", folder)
    check(evaluate, test, hint="--skip-bad", progress=True)
    bench = run("bench", fitted.path, "--data", folder)
    check(bench, test, hint="--skip-bad", progress=True)
    compress = run("compress", fitted.path, "-o", "out", "--force", "--prune", 0.3, "--data", folder)
    check(compress, train, hint="--skip-bad", progress=True)
    predict = run("predict", fitted.path, test)
    check(predict, test, "cannot read the image")


def test_with_skip_bad_work_goes_on_and_images_are_counted(run, fitted, spoilt, tmp_path):
    folder, (*_, test) = spoilt
    result = run("fit", "tinynet", "--data", folder, "-o", tmp_path / "b", "--skip-bad", "--epochs", 1)
    assert result.exit_code == 0, result.stderr
    assert read_bundle(tmp_path / "b").manifest.metrics["skipped"] == 3
    assert ["skipped", "3"] in [line.split() for line in result.stdout.splitlines()]
    evaluate = run("eval", fitted.path, "--data", folder, "--skip-bad")
    assert evaluate.exit_code == 0
    lines = [line.split() for line in evaluate.stdout.splitlines()]
    assert lines[lines.index(["skipped", "1"]) + 1] == [str(test)]
    bench = run("bench", fitted.path, "--data", folder, "--skip-bad", "--seconds", 0)
    assert bench.exit_code == 0
    assert "9 samples" in bench.stdout


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((60, 3, 28, 28), np.float32),
        ((60, 1, 32, 32), np.float32),
        ((60, 784), np.float32),
        ((60,), np.float32),
        ((60, 28, 28), np.float64),
        ((60, 1, 28, 28), np.uint8),
        ((60, 784), np.uint8),
        ((60,), np.uint8),
        ((60, 28, 28, 5), np.uint8),
    ],
)
def test_calibration_data_of_the_wrong_shape(shape, kind, run, place, fitted, tmp_path):
    np.savez(tmp_path / "odd.npz", x=np.zeros(shape, kind))
    result = run("compress", fitted.path, "-o", "out", "--force", "--prune", 0.3, "--data", tmp_path / "odd.npz")
    check(result, progress=True)


NPZ = {
    "no x": ({"a": np.zeros(3), "b": np.zeros(3)}, "no array 'x'"),
    "one array, no images": ({"a": np.zeros(3)}, "a is float64 of shape (3,)"),
    "y too short": ({"x": np.zeros((9, 8, 8), np.uint8), "y": np.zeros(5, int)}, "x has 9 samples, y has 5"),
    "NaN": ({"x": np.full((9, 1, 28, 28), np.nan, np.float32)}, "non-finite values"),
    "empty": ({"x": np.zeros((0, 8, 8), np.uint8)}, ""),
    "texts": ({"x": np.array(["a", "b", "c"])}, ""),
    "one number": ({"x": np.float32(3.0)}, ""),
    "two samples": ({"x": np.zeros((2, 8, 8), np.uint8)}, ""),
}


@pytest.mark.parametrize("name", NPZ)
def test_arrays_that_are_no_data_set(name, run, place, fitted, tmp_path):
    arrays, message = NPZ[name]
    np.savez(tmp_path / "odd.npz", **arrays)
    result = run("compress", fitted.path, "-o", "out", "--force", "--prune", 0.3, "--data", tmp_path / "odd.npz")
    check(result, message, progress=True)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"no zip"])
def test_a_damaged_npz(content, run, place, fitted, tmp_path):
    (tmp_path / "odd.npz").write_bytes(content)
    check(run("eval", fitted.path, "--data", tmp_path / "odd.npz"), f"cannot read {tmp_path / 'odd.npz'}")


def test_a_file_that_is_no_data_set(run, place, fitted, tmp_path):
    (tmp_path / "data.xyz").write_text("1,2")
    check(run("eval", fitted.path, "--data", tmp_path / "data.xyz"), "is not a data set", hint="npz")


def test_classes_the_model_does_not_know(run, place, fitted, photos, tmp_path):
    some = photos(tmp_path / "some", {"0": 5, "1": 5, "nine": 5})
    check(run("eval", fitted.path, "--data", some), "unknown to the model: nine")
    none = photos(tmp_path / "none", {"cat": 5, "dog": 5})
    check(
        run("eval", fitted.path, "--data", none),
        "no targets for image-classification with the model's labels",
        hint="pocketzoo info",
    )


# -- recipes


@pytest.mark.parametrize(
    ("recipe", "message", "hint"),
    [
        ('[[step]]\nkind = "prune"\nratoi = 0.3', "no field of PruneConfig is called 'ratoi'", "did you mean 'ratio'?"),
        ('[[step]]\nkind = "int8"\nrange = "mse"', "no field of Int8Config is called 'range'", "'ranges'"),
        ('[[step]]\nkind = "low-rank"\nenergi = 1', "no field of LowRankConfig is called 'energi'", "'energy'"),
        ('[[step]]\nkind = "purne"', "no step is of kind 'purne'", "did you mean 'prune'?"),
        ('[[step]]\nkind = "prune"\nratio = 3', "PruneConfig.ratio cannot be 3", "below 1"),
        ('[[step]]\nkind = "prune"\nratio = "a"', "PruneConfig.ratio must be float", ""),
        ('[[steps]]\nkind = "prune"', "unknown table 'steps'", "'step'"),
        ('[[step]]\nkind = "prune"\nskip = ["backbone.stem.1"]', "skip names no layer", "backbone.stem.0"),
        ('[[step]]\nkind = "int8"\n[[step]]\nkind = "prune"', "int8 is not the last step", "put prune"),
        ('[[step]]\nkind = "int8"\n[[step]]\nkind = "int8"', "int8", ""),
        ("kind: prune", "is not valid TOML", ""),
        ("", "has no steps", "[[step]]"),
    ],
)
@pytest.mark.parametrize("dry", [False, True])
def test_a_recipe_with_a_mistake(recipe, message, hint, dry, run, place, fitted, few, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(recipe)
    where = ["--dry-run"] if dry else ["-o", "out", "--force"]
    result = run("compress", fitted.path, *where, "-r", path, "--data", few)
    check(result, message, hint=hint, progress="skip names" in message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prune", "1.5"], "PruneConfig.ratio cannot be 1.5"),
        (["--prune", "-0.1"], "PruneConfig.ratio cannot be -0.1"),
        (["--prune", "nan"], "PruneConfig.ratio cannot be nan"),
        (["--low-rank", "0"], "LowRankConfig.energy cannot be 0"),
        (["--low-rank", "2"], "LowRankConfig.energy cannot be 2"),
        ([], "no steps are given"),
    ],
)
def test_options_out_of_range(options, message, run, place, fitted, few):
    check(run("compress", fitted.path, "-o", "out", "--force", *options, "--data", few), message)


def test_an_int8_bundle_is_not_compressed_again(run, place, few):
    result = run("compress", "./out", "-o", "again", "--int8", "--data", few)
    check(result, "is already int8", hint="the bundle it was made from")


# -- damaged bundles


def _readers(bundle: Path, few: Path, digit: Path) -> list[list[object]]:
    return [
        ["info", bundle],
        ["verify", bundle],
        ["eval", bundle, "--data", few],
        ["compress", bundle, "-o", "out", "--force", "--prune", 0.3, "--data", few],
        ["export", bundle, "-o", "m.onnx"],
        ["export", bundle],
        ["bench", bundle],
        ["predict", bundle, digit],
        ["report", bundle, "-o", "r.html"],
    ]


@pytest.fixture
def broken(compressed, tmp_path) -> Path:
    path = tmp_path / "broken"
    shutil.copytree(compressed.path, path)
    return path


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_byte(file, run, place, broken, few, digit):
    data = bytearray((broken / file).read_bytes())
    data[len(data) // 2] ^= 1
    (broken / file).write_bytes(data)
    before = contents(broken)
    for arguments in _readers(broken, few, digit):
        check(run(*arguments), broken / file, "is damaged", hint="restore it")
    assert contents(broken) == before


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_of_a_bundle(file, run, place, broken, few, digit):
    (broken / file).unlink()
    before = contents(broken)
    for arguments in _readers(broken, few, digit):
        check(run(*arguments), f"is missing its file {file}", hint="restore it")
    assert contents(broken) == before


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_too_long(file, run, place, broken):
    with (broken / file).open("ab") as handle:
        handle.write(b"\0")
    check(run("verify", broken), broken / file, "is damaged")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"format": 1}', '{"format": 99}', '{"name": 3}', "\xff"])
def test_a_manifest_that_is_none(text, run, place, broken, few, digit):
    (broken / MANIFEST).write_text(text, "latin-1")
    for arguments in _readers(broken, few, digit):
        check(run(*arguments), broken)


def test_a_bundle_of_a_newer_version(run, place, broken):
    text = (broken / MANIFEST).read_text().replace('"format": 2', '"format": 3')
    (broken / MANIFEST).write_text(text)
    check(run("verify", broken), "has format 3", hint="upgrade")


@pytest.mark.parametrize("target", ["../../etc/passwd", "/etc/passwd"])
def test_a_bundle_that_points_outside_itself(target, run, place, broken):
    text = (broken / MANIFEST).read_text().replace('"README.md"', f'"{target}"')
    (broken / MANIFEST).write_text(text)
    check(run("verify", broken), "points outside itself", hint="do not use")


def test_a_folder_that_is_no_bundle(run, place, tmp_path, few, digit):
    (tmp_path / "folder").mkdir()
    for arguments in _readers(tmp_path / "folder", few, digit):
        check(run(*arguments), "is not a bundle", hint="pocketzoo fit")


# -- writing


def test_what_is_no_bundle_is_not_overwritten(run, fitted, few, photos, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    result = run("compress", fitted.path, "-o", mine, "--prune", 0.3, "--data", few)
    check(result, "exists and is not a bundle", hint="-o", progress=True)
    result = run("fit", "tinynet", "--data", few, "-o", mine, "--epochs", 1)
    check(result, "exists and is not a bundle", hint="-o", progress=True)
    assert contents(mine) == {"thesis.txt": b"precious"}
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_exports_that_cannot_be_written(run, place, fitted):
    check(run("export", fitted.path, "-o", place), "is a folder", hint="file name")
    check(run("export", fitted.path, "-o", "out/m.onnx"), "inside a bundle", hint="leave out -o")
    check(run("export", fitted.path, "--to", "tensorrt-rtx", "--target", "cpu", "-o", "m"), "has no engines")


# -- heads


def test_a_head_that_is_fitted_already(run, place, few):
    result = run("fit", "tinynet", "--head", "tinynet-fashion-mnist", "--data", few, "-o", "out", "--force")
    check(result, "is already trained", hint="--head linear")


PLUGIN = """
import pocketzoo
from pocketzoo.zoo.catalog.specs import DatasetSpec, HeadSpec


def build(features, outputs):
    raise AssertionError("never reached")


def load():
    return 1 / 0


@pocketzoo.hookimpl
def pocketzoo_heads():
    return [HeadSpec(name="words", summary="for sequences", takes=("sequence",), task="*-classification", build=build)]


@pocketzoo.hookimpl
def pocketzoo_datasets():
    return [DatasetSpec(name="buggy", summary="fails", license="MIT", load=load)]
"""


@pytest.fixture
def plugin(tmp_path) -> Path:
    """An installed distribution with an entry point, as pip would lay it out."""
    folder = tmp_path / "site"
    info = folder / "wordheads-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "wordheads.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wordheads\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pocketzoo]\nwordheads = wordheads\n")
    return folder


def _two(done, *message: str, hint: str) -> None:
    lines = [line for line in done.stderr.splitlines() if not line.startswith("  ")]
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("error: ")
    assert all(part in lines[0] for part in message), lines
    assert lines[1].startswith("hint:  ")
    assert hint in lines[1], lines


def test_a_head_that_cannot_read_the_features(shell, plugin, few, tmp_path):
    done = shell("fit", "tinynet", "--head", "words", "--data", few, "-o", tmp_path / "b", path=plugin)
    _two(done, "head 'words' takes a sequence", "tinynet outputs a map", hint="heads that fit: embedding, linear")
    assert not (tmp_path / "b").exists()


def test_a_bug_keeps_its_traceback(shell, plugin, fitted):
    """Nobody can mend a bug with a hint; the place where it is helps."""
    done = shell("eval", fitted.path, "--data", "buggy", path=plugin)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "hint:" not in done.stderr


# -- missing extras


HIDER = """
import sys


class Hide:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {names!r} else self.finder.find_spec(name, path, target)


sys.meta_path[:] = [Hide(finder) for finder in sys.meta_path]
"""


@pytest.fixture
def without(tmp_path):
    """A folder to import from that makes packages look as if they were not installed."""

    def make(*names: str) -> Path:
        folder = tmp_path / "blocked"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(HIDER.format(names=names))
        return folder

    return make


HEAVY = ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors", "PIL", "sklearn", "tensorrt_rtx", "tensorrt")


@pytest.mark.slow
def test_int8_of_a_bundle_needs_no_torch(shell, without, fitted, few, tmp_path):
    options = ["--int8", "--keep-slower", "--data", few, "-o", tmp_path / "out"]
    done = shell("compress", fitted.path, *options, path=without("torch"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.int8.cpu.onnx").is_file()


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        (("torch",), "fit tinynet --data {few} -o out", "compress"),
        (("torch",), "compress {fitted} --prune 0.3 --data {few} -o out", "compress"),
        (("onnx",), "compress {fitted} --int8 --data {few} -o out", "compress"),
        (("onnx",), "compress {fitted} --prune 0.3 --data {few} -o out", "compress"),
        (("safetensors",), "compress {fitted} --prune 0.3 --data {few} -o out", "compress"),
        pytest.param(
            ("onnxscript",), "compress {fitted} --prune 0.3 --data {few} -o out", "compress", marks=pytest.mark.slow
        ),
        (("onnxruntime",), "compress {fitted} --int8 --data {few} -o out", "edge"),
        (("onnxruntime",), "eval {fitted} --data {few}", "edge"),
        (("onnxruntime",), "bench {fitted}", "edge"),
        (("onnxruntime",), "predict {fitted} {digit}", "edge"),
        (("onnx",), "export {compressed} --to onnx --target tensorrt -o m.onnx", "compress"),
        (("torch",), "predict tinynet {digit}", "compress"),
        (("PIL",), "predict {fitted} {digit}", "data"),
        (("PIL",), "eval {fitted} --data {few}", "data"),
        (("sklearn",), "eval {fitted} --data digits", "demo"),
        (("sklearn",), "demo -o out", "demo"),
        (("tensorrt_rtx",), "export {fitted} --to tensorrt-rtx -o m.engine", "tensorrt-rtx"),
        (("tensorrt",), "export {fitted} --to tensorrt -o m.engine", "tensorrt"),
        (HEAVY, "fit tinynet --data {few} -o out", ""),
        (HEAVY, "compress {fitted} --prune 0.3 --data {few} -o out", "compress"),
        (HEAVY, "eval {fitted} --data {few}", ""),
        (HEAVY, "bench {fitted}", "edge"),
        (HEAVY, "predict {fitted} {digit}", ""),
        (HEAVY, "demo -o out", ""),
    ],
)
def test_a_missing_extra(missing, arguments, extra, shell, without, fitted, compressed, few, digit, tmp_path):
    words = arguments.format(fitted=fitted.path, compressed=compressed.path, few=few, digit=digit).split()
    words = [str(tmp_path / w) if w in ("out", "m.onnx", "m.engine") else w for w in words]
    home = tmp_path / "home"  # empty, so that tinynet has to be made
    done = shell(*words, path=without(*missing), POCKETZOO_HOME=str(home))
    _two(done, "is not installed", hint=f"pip install 'pocketzoo[{extra}")
    assert not {p.name for p in tmp_path.iterdir()} & {"out", "m.onnx", "m.engine"}
    assert not list(home.rglob("*.tmp"))


@pytest.mark.parametrize("arguments", [["list"], ["plugins"], ["doctor"], ["info", "tinynet"], ["--help"]])
def test_looking_around_needs_no_extra(arguments, shell, without):
    done = shell(*arguments, path=without(*HEAVY))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_a_device_without_onnx_evaluates_and_times(shell, without, fitted, few):
    path = without("onnx")
    for words in (("eval", fitted.path, "--data", few), ("bench", fitted.path, "--data", few, "--seconds", 0)):
        done = shell(*words, path=path)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_bundles_are_verified_and_shown_without_any_extra(shell, without, compressed, tmp_path):
    path = without(*HEAVY)
    for arguments in (["verify", compressed.path], ["info", compressed.path], ["info", compressed.path, "--json"]):
        done = shell(*arguments, path=path)
        assert (done.returncode, done.stderr) == (0, "")
    done = shell("export", compressed.path, "-o", tmp_path / "m.onnx", path=path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "m.onnx").read_bytes() == compressed.graph("cpu").read_bytes()


# -- the sources


def _raises() -> list[tuple[str, ast.Call]]:
    family = {n for n, e in vars(errors).items() if isinstance(e, type) and issubclass(e, errors.PocketzooError)}
    found = []
    root = Path(pocketzoo.__file__).parent
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in family:
                found.append((f"{path.relative_to(root)}:{node.lineno}", node))
    return found


@pytest.mark.parametrize(("where", "call"), _raises(), ids=[where for where, _ in _raises()])
def test_every_error_in_the_package_has_a_hint(where, call):
    assert len(call.args) + len(call.keywords) == 2, where
    hint = call.args[1] if len(call.args) > 1 else call.keywords[0].value
    assert not (isinstance(hint, ast.Constant) and not hint.value), where
    for text in (call.args[0], hint):  # a text with braces that lacks its f would print them
        if isinstance(text, ast.Constant):
            assert "{" not in str(text.value), where
