from __future__ import annotations

import json
import shutil

import pytest
from told import Told

import pocketzoo
from pocketzoo.core.typed import to_plain
from pocketzoo.workflows.predict import predict
from pocketzoo.zoo.bundles.bundle import read_bundle


def plain(value):
    return json.loads(json.dumps(to_plain(value)))


# -- export


def test_export_says_what_it_wrote(run, compressed, tmp_path):
    out = tmp_path / "m.onnx"
    result = run("export", compressed.path, "-o", out, "--target", "tensorrt", "--json")
    assert json.loads(result.stdout) == {"file": str(out), "bytes": out.stat().st_size}
    result = run("export", compressed.path, "-o", out)
    assert result.stdout == f"wrote {out} ({out.stat().st_size:,} bytes)\n"
    assert result.stderr == ""
    assert out.read_bytes() == compressed.graph("cpu").read_bytes()


def test_export_into_the_bundle(run, compressed, tmp_path):
    path = tmp_path / "b"
    shutil.copytree(compressed.path, path)
    result = run("export", path, "--target", "tensorrt")
    assert result.exit_code == 0
    assert read_bundle(path).graph("tensorrt").name == "model.int8.tensorrt.onnx"
    assert run("verify", path).exit_code == 0


@pytest.mark.engine
def test_export_builds_an_engine_and_tells_on_stderr(run, fitted, tmp_path):
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    out = tmp_path / "m.engine"
    options = ["--shape", "batch=1:3:5", "-o", out, "--json"]  # lengths that no other test asks for
    for says in ("building the engine", "copied from the cache"):
        result = run("export", fitted.path, "--to", "tensorrt-rtx", *options)
        assert json.loads(result.stdout)["bytes"] == out.stat().st_size > 10_000
        assert says in result.stderr


# -- bench


def test_bench_prints_rows_or_a_table(run, fitted, compressed, few):
    options = ["--data", few, "--batch", "1,2", "--seconds", 0, "--threads", 1]
    rows = json.loads(run("bench", fitted.path, compressed.path, *options, "--json").stdout)
    assert [r["bundle"] for r in rows] == [fitted.manifest.name, *[compressed.manifest.name] * 3]
    assert all(list(r["latency"]) == ["1", "2"] for r in rows)
    assert rows[0]["agreement"] == 1.0
    table = run("bench", fitted.path, *options)
    assert table.stderr == ""
    assert table.stdout.splitlines()[0].split()[:2] == ["model", "precision"]
    assert "ms, batch 2" in table.stdout
    assert f"{fitted.manifest.parameters / 1e3:,.0f} k" in table.stdout


@pytest.mark.parametrize("batch", ["", "0", "-1", "1,,2", "a", "1.5", "1;2"])
def test_batch_sizes_that_are_none(batch, run, fitted):
    result = run("bench", fitted.path, "--batch", batch)
    assert result.exit_code == 2
    assert "1,8,32" in result.stderr


@pytest.mark.parametrize("options", [["--threads", -1], ["--seconds", -1], ["--seconds", "x"], ["--seed", 1.5]])
def test_numbers_out_of_range(options, run, fitted):
    assert run("bench", fitted.path, *options).exit_code == 2


def test_bench_keeps_its_rows_when_asked_to(run, fitted_copy, few):
    options = ["--data", few, "--batch", "1", "--seconds", 0, "--save", "--json"]
    rows = json.loads(run("bench", fitted_copy.path, *options).stdout)
    assert plain(read_bundle(fitted_copy.path).manifest.measurements) == rows


# -- predict


@pytest.mark.parametrize("top", [1, 3, 10])
def test_predict_prints_what_the_library_predicts(top, run, fitted, digit):
    found = predict(fitted.path, [digit, digit], top=top)
    result = run("predict", fitted.path, digit, digit, "--top", top, "--json")
    assert json.loads(result.stdout) == [
        {"file": p.file, "top": [{"label": a, "probability": b} for a, b in p.top]} for p in found
    ]
    lines = run("predict", fitted.path, digit, "--top", top).stdout.splitlines()
    assert lines[0] == str(digit)
    assert [line.split() for line in lines[1:]] == [[f"{share:.1%}", label] for label, share in found[0].top]


def test_predict_needs_at_least_one_class(run, fitted, digit):
    assert run("predict", fitted.path, digit, "--top", 0).exit_code == 2


# -- verify


def test_verify_counts_files_and_bytes(run, compressed):
    result = run("verify", compressed.path)
    size = sum((compressed.path / n).stat().st_size for n in compressed.manifest.files)
    assert result.stdout == f"{compressed.path} is intact: {len(compressed.manifest.files)} files, {size:,} bytes\n"
    assert result.exit_code == 0


# -- demo


@pytest.mark.slow
@pytest.mark.engine
def test_the_demo_goes_all_the_way(run, tmp_path):
    """Real data, every step, an engine and a report; the numbers in the table are those in the bundles."""
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    out = tmp_path / "demo"
    result = run("demo", "-o", out)
    assert result.exit_code == 0, result.stderr
    assert {p.name for p in out.iterdir()} == {
        "fitted", "pruned", "factorized", "int8", "report.html", "demo.json",
    }  # fmt: skip
    assert (out / "int8" / "model.int8.tensorrt-rtx.engine").stat().st_size > 10_000
    for step in ("1/5", "2/5", "3/5", "4/5", "5/5"):
        assert step in result.stderr
    rows = read_bundle(out / "int8").manifest.measurements
    assert rows[0].accuracy > 0.95
    assert all(r.accuracy > 0.9 for r in rows)
    for row in rows:
        assert f"{row.accuracy:.3f}" in result.stdout
    for place in (out / "report.html", out / "int8"):
        assert str(place) in result.stdout
    for name in ("fitted", "pruned", "factorized", "int8"):
        assert run("verify", out / name).exit_code == 0


def test_the_demo_replaces_no_bundle_of_others(run, small_copy, tmp_path):
    before = {p.name: p.read_bytes() for p in small_copy.path.iterdir()}
    small_copy.path.rename(tmp_path / "int8")
    result = run("demo", "-o", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"error: {tmp_path / 'int8'} is already a finished bundle", "hint:  give another -o, or --force to replace it",
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["int8"]
    assert {p.name: p.read_bytes() for p in (tmp_path / "int8").iterdir()} == before


class Begun(BaseException):
    """Nothing was refused."""


class Beginning(Told):
    def say(self, text: str) -> None:
        raise Begun


@pytest.mark.parametrize("why", ["its own folder", "told so"])
def test_the_demo_replaces_its_own_bundles_and_those_it_is_told_to(why, small_copy, tmp_path):
    small_copy.path.rename(tmp_path / "int8")
    if why == "its own folder":
        (tmp_path / "demo.json").write_text("{}")
    with pytest.raises(Begun):
        pocketzoo.demo(tmp_path, force=why == "told so", progress=Beginning())


# -- what an engine is asked for


@pytest.mark.parametrize("shape", ["batch", "batch=", "batch=a", "batch=1:2", "8"])
def test_a_shape_that_is_none_is_a_usage_error(run, fitted, shape):
    result = run("export", fitted.path, "--to", "trtexec", "--shape", shape, "-o", "out")
    assert result.exit_code == 2
    assert "write batch=1:8:32, or batch=8" in result.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--to", "trtexec", "--shape", "batch=8:4:2"], "the sizes of batch cannot be 8:4:2"),
        (["--to", "onnx", "--shape", "batch=8"], "--to onnx does not build an engine"),
        (["--to", "onnx", "--precision", "fp16"], "cpu does not compute in fp16"),
        (["--to", "trtexec", "--dla", "0"], "DLA needs static shapes, and 'batch' is dynamic"),
        (["--to", "triton", "--target", "tensorrt-rtx"], "Triton does not run engines of tensorrt_rtx"),
        (["--to", "tensorrt", "--target", "cpu"], "'cpu' has no engines"),
    ],
)
def test_what_cannot_be_asked_is_two_lines_and_leaves_nothing(run, fitted, tmp_path, options, says):
    result = run("export", fitted.path, *options, "-o", tmp_path / "out")
    assert result.exit_code == 1
    what, hint = result.stderr.splitlines()
    assert says in what
    assert hint.startswith("hint:")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_counted_and_a_graph_in_16_bits_lies_beside(run, fitted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("export", fitted.path, "--to", "triton", "--json")
    place = tmp_path / json.loads(result.stdout)["file"]
    assert place.name == f"{fitted.manifest.name}.triton"
    assert json.loads(result.stdout)["bytes"] == sum(p.stat().st_size for p in place.rglob("*") if p.is_file())
    result = run("export", fitted.path, "--precision", "fp16", "--target", "cuda")
    assert result.exit_code == 0
    assert (tmp_path / f"{fitted.manifest.name}.fp16.onnx").is_file()


def test_the_demo_is_not_written_into_a_bundle(run, fitted_copy):
    before = sorted(fitted_copy.path.iterdir())
    result = run("demo", "-o", fitted_copy.path)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "hint:  choose another place with -o"
    assert sorted(fitted_copy.path.iterdir()) == before
