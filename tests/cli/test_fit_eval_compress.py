from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from rehearsal import rehearse
from safetensors.numpy import load_file

from pocketzoo.cli.options import Fraction
from pocketzoo.compress.configs import LowRankConfig, PruneConfig
from pocketzoo.core.typed import to_plain
from pocketzoo.measure.evaluate import evaluate
from pocketzoo.zoo.bundles.bundle import read_bundle


def plain(value):
    return json.loads(json.dumps(to_plain(value)))


# -- fit


def test_fit_writes_a_bundle_and_says_how_good_it_is(run, few, tmp_path):
    out = tmp_path / "b"
    result = run("fit", "tinynet", "--data", few, "-o", out, "--epochs", 2, "--head", "mlp", "--seed", 3, "--json")
    assert result.exit_code == 0, result.stderr
    bundle = read_bundle(out)
    assert json.loads(result.stdout) == {"bundle": str(out), **plain(bundle.manifest.metrics)}
    assert bundle.manifest.model.head == "mlp"
    assert bundle.manifest.provenance["training"]["epochs"] == 2
    assert bundle.manifest.provenance["training"]["seed"] == 3
    assert bundle.manifest.provenance["data"]["seed"] == 3
    assert "export" in result.stderr


def test_fit_after_a_cut_with_options(run, few, tmp_path):
    out = tmp_path / "b"
    result = run("fit", "tinynet", "--cut", "stem", "--data", few, "-o", out, "--epochs", 1, "--learning-rate", 0.1)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"wrote {out}"
    manifest = read_bundle(out).manifest
    assert manifest.model.cut == "stem"
    assert manifest.provenance["training"]["learning_rate"] == 0.1
    assert manifest.parameters < 10_000
    metrics = dict(manifest.metrics)
    low, high = metrics.pop("intervals")["test_accuracy"]
    words = [line.split() for line in result.stdout.splitlines()[:-1]]
    assert {" ".join(line[:2]): float(line[2]) for line in words} == {
        k.replace("_", " "): pytest.approx(v, rel=1e-3) for k, v in metrics.items()
    }
    assert f"({low:.4g} to {high:.4g})" in result.stdout


# -- eval


def test_eval_prints_what_the_library_scores(run, fitted, few):
    result = run("eval", fitted.path, "--data", few, "--json")
    assert json.loads(result.stdout) == plain(evaluate(fitted.path, data=few))
    assert result.stderr == ""
    lines = [line.split() for line in run("eval", fitted.path, "--data", few).stdout.splitlines()]
    scores = evaluate(fitted.path, data=few)
    low, high = scores["intervals"]["accuracy"]
    assert lines[0] == ["accuracy", f"{scores['accuracy']:.4f}", f"({low:.4g}", "to", f"{high:.4g})"]
    assert [line[0] for line in lines[-10:]] == [str(i) for i in range(10)]
    for name, line in zip("0123456789", lines[-10:], strict=True):
        wrong = {k: n for k, n in scores["confusion"][name].items() if k != name}
        assert line[2:4] == (["taken", "for"] if wrong else [])


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("target", ["cpu", "tensorrt-rtx"])
def test_eval_takes_a_target_and_a_seed(target, seed, run, compressed, few):
    result = run("eval", compressed.path, "--data", few, "--target", target, "--seed", seed, "--json")
    assert json.loads(result.stdout) == plain(evaluate(compressed.path, data=few, target=target, seed=seed))


# -- compress


def test_a_dry_run_prints_plans_and_writes_nothing(run, perceptron, few, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path_factory.mktemp("recipe") / "r.toml"
    recipe.write_text('[[step]]\nkind = "low-rank"\nenergy = 0.99\nonly_faster = false\n')
    arguments = ["compress", perceptron.path, "-r", recipe, "--prune", 0.4, "--data", few, "--samples", 16]
    result = run(*arguments, "--dry-run", "--json")
    steps = [LowRankConfig(energy=0.99, only_faster=False), PruneConfig(ratio=0.4)]
    wanted = rehearse(perceptron.path, data=few, steps=steps, samples=16)
    assert json.loads(result.stdout) == plain(wanted)
    assert result.stderr
    assert all(line.startswith("  ") for line in result.stderr.splitlines())
    text = run(*arguments, "--dry-run").stdout
    for step in wanted:
        report = step.report
        before, after = report.parameters.before, report.parameters.after
        line = next(x for x in text.splitlines() if x.startswith(f"{step.compressor}: "))
        assert f"{before:,} -> {after:,} parameters" in line
        assert f"{report.macs.before:,} -> {report.macs.after:,} MACs" in line
        assert f"{report.bytes.before:,} -> {report.bytes.after:,} bytes" in line
    for name, factor in wanted[0].plan["factors"].items():
        assert any(name in x and f"{factor['kind']} {factor['ranks'][0]}" in x for x in text.splitlines())
    assert [p.name for p in tmp_path.iterdir()] == []


def test_a_dry_run_of_int8_and_of_single_weights_is_readable(run, perceptron, few, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('[[step]]\nkind = "prune"\ngranularity = "weight"\nratio = 0.5\n')
    result = run("compress", perceptron.path, "-r", recipe, "--int8", "--data", few, "--samples", 8, "--dry-run")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["backbone.linear_1", "int8"] in lines
    assert any("becomes 0" in line for line in result.stdout.splitlines())


@pytest.mark.usefixtures("untimed")
def test_compress_prints_the_rows_of_the_bundle_it_wrote(run, perceptron, few, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('[[step]]\nkind = "prune"\nratio = 0.5\n')
    out = tmp_path / "b"
    options = [
        "--low-rank",
        0.99,
        "--int8",
        "--target",
        "tensorrt",
        "--target",
        "cpu",
        "--samples",
        16,
        "--keep-slower",
    ]
    result = run("compress", perceptron.path, "-o", out, "-r", recipe, *options, "--data", few, "--json")
    assert result.exit_code == 0, result.stderr
    bundle = read_bundle(out)
    assert json.loads(result.stdout) == {
        "bundle": str(out),
        "measurements": plain(bundle.manifest.measurements),
        "steps": [{"compressor": s.compressor, "report": plain(s.report)} for s in bundle.manifest.steps],
        "rejected": plain(bundle.manifest.rejected),
    }
    assert [s.compressor for s in bundle.manifest.steps] == ["prune", "low-rank", "int8"]
    assert bundle.manifest.steps[0].config["ratio"] == 0.5
    assert set(bundle.encodings()) == {"", "cpu", "tensorrt"}
    # Nothing but progress on stderr, so that stdout can be piped.
    assert all(line.startswith("  ") for line in result.stderr.splitlines())


@pytest.mark.usefixtures("untimed")
def test_the_table_shows_every_row_in_full(run, perceptron, few, tmp_path):
    out = tmp_path / "a bundle with a rather long name"
    result = run("compress", perceptron.path, "-o", out, "--int8", "--data", few, "--samples", 8, "--keep-slower")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[-1] == f"wrote {out}"
    for row in read_bundle(out).manifest.measurements:
        shown = f"int8 for {row.target}" if row.target else "float32"
        found = [line for line in lines if line.startswith(row.bundle) and f"  {shown} " in line]
        assert len(found) == 1
        assert f"{row.accuracy:.3f}" in found[0]
        assert f"{row.latency['32'].p50:.2f}" in found[0]
    assert "…" not in result.stdout


@pytest.mark.parametrize(
    ("text", "share"), [("1%", 0.01), ("0.01", 0.01), ("0", 0.0), ("99.5%", 0.995), ("5e-3", 0.005)]
)
def test_a_share_is_a_percentage_or_a_fraction(text, share):
    assert Fraction().convert(text, None, None) == pytest.approx(share)


@pytest.mark.parametrize("text", ["1", "100%", "-1%", "1.5", "much", "%", "nan", "1 %%"])
def test_what_could_be_either_or_neither_is_no_share(text, run, fitted, few):
    result = run("compress", fitted.path, "-o", "out", "--prune", 0.3, "--max-drop", text, "--data", few)
    assert result.exit_code == 2
    assert "1% or 0.01" in result.stderr


def test_min_sqnr_without_int8_is_an_error_of_two_lines(run, fitted, few, tmp_path):
    result = run("compress", fitted.path, "-o", tmp_path / "b", "--prune", 0.3, "--min-sqnr", 25, "--data", few)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-2:] == [
        "error: min_sqnr needs a step whose config takes it, such as int8, and there is none",
        "hint:  add --int8, or leave out --min-sqnr",
    ]


@pytest.mark.usefixtures("untimed")
def test_what_was_rejected_and_left_in_float_is_printed(run, perceptron, few, tmp_path):
    out = tmp_path / "b"
    options = ["--int8", "--min-sqnr", 45, "--keep-slower", "--samples", 8]
    result = run("compress", perceptron.path, "-o", out, *options, "--data", few)
    if result.exit_code == 3:  # not even with one layer in int8 are there 45 dB
        assert "int8: every layer would have to stay in float" in result.stderr
        assert not out.exists()
        return
    assert result.exit_code == 0, result.stderr
    manifest = read_bundle(out).manifest
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    kept = manifest.steps[-1].report.float_layers
    count = len(manifest.layers["float"])
    assert f"left in float: {len(kept)} of {count} layers" in lines
    assert {f"{layer} {why}" for layer, why in kept.items()} <= set(lines)


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("both", [False, True])
def test_what_loses_too_much_ends_in_3_and_says_the_way_out(both, run, perceptron, few, tmp_path):
    recipe, out = tmp_path / "r.toml", tmp_path / "b"
    recipe.write_text('[[step]]\nkind = "prune"\ngranularity = "weight"\nratio = 0.99\nrefit = false\n')
    options = ["-r", recipe, *["--int8"] * both, "--data", few, "--samples", 8, "--keep-slower"]
    result = run("compress", perceptron.path, "-o", out, *options)
    assert result.exit_code == 3
    assert "--accept" in result.stderr.splitlines()[-1]
    lines = result.stdout.splitlines()
    if both:
        assert lines[-1] == f"wrote {out} without prune"
        assert [line.partition(": accuracy")[0] for line in lines if line.startswith("rejected")] == ["rejected: prune"]
    else:
        assert lines == []
        assert result.stderr.splitlines()[-2].startswith("error: rejected, nothing was written: prune: accuracy falls")
        assert not out.exists()
    accepted = run("compress", perceptron.path, "-o", tmp_path / "c", *options, "--accept")
    assert accepted.exit_code == 0, accepted.stderr
    recipe.write_text("accept = true\n" + recipe.read_text())
    assert run("compress", perceptron.path, "-o", tmp_path / "d", *options).exit_code == 0


def test_compress_needs_a_place_or_a_rehearse(run, fitted, few):
    result = run("compress", fitted.path, "--prune", 0.3, "--data", few)
    assert result.exit_code == 2
    assert "'-o'" in result.stderr
    assert "--dry-run" in result.stderr


@pytest.mark.parametrize("options", [["--samples", 0], ["--samples", -1], ["--prune", "much"], ["--low-rank", "x"]])
def test_options_that_are_no_numbers_in_range_exit_with_two(options, run, fitted, few):
    result = run("compress", fitted.path, "-o", "out", *options, "--data", few)
    assert result.exit_code == 2
    assert "Error: Invalid value" in result.stderr


@pytest.mark.parametrize("options", [["--epochs", 0], ["--epochs", "many"], ["--learning-rate", "fast"]])
def test_options_of_fit_that_are_no_numbers_in_range_exit_with_two(options, run, few):
    result = run("fit", "tinynet", "-o", "out", *options, "--data", few)
    assert result.exit_code == 2
    assert "Error: Invalid value" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "clip"], "--set clip has no value"),
        (["--set", "clip=1", "--set", "clip=2"], "--set clip is given more than once"),
        (["--set", "clop=1"], "training has no option 'clop'"),
        (["--set", "warm_up=2"], "warm_up cannot be 2.0"),
        (["--set", "precision=int4"], "cannot be 'int4'"),
        (["--unfreeze", "last:0"], "unfreeze cannot be 'last:0'"),
        (["--unfreeze", "nowhere"], "the backbone has no block 'nowhere'"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_is_refused(options, words, run, few, tmp_path):
    result = run("fit", "tinynet", "-o", tmp_path / "b", *options, "--data", few)
    assert result.exit_code == 1
    assert words in result.stderr
    assert "hint: " in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rate", ["-1", "nan"])
def test_a_learning_rate_that_is_none_is_refused(rate, run, few, tmp_path):
    result = run("fit", "tinynet", "-o", tmp_path / "b", "--learning-rate", rate, "--data", few, "--epochs", 1)
    assert result.exit_code in (1, 2), result.output
    assert "rror: " in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rate", ["inf", "1e30"])
def test_training_that_explodes_is_no_model(rate, run, few, tmp_path):
    """Whatever a bundle holds is finite: its graph is compared with the module, and NaN equals nothing."""
    result = run("fit", "tinynet", "-o", tmp_path / "b", "--learning-rate", rate, "--data", few, "--epochs", 1)
    if result.exit_code == 0:
        weights = load_file(read_bundle(tmp_path / "b").file("model.safetensors"))
        assert all(np.isfinite(w).all() for w in weights.values())
    else:
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-2].startswith("error: ")
        assert list(tmp_path.iterdir()) == []


# -- options of heads, other input sizes


def test_fit_takes_options_of_the_head_and_a_size(run, photos, tmp_path):
    path = photos(tmp_path / "pets", {"cat": 6, "dog": 6})
    options = ["--head-option", "hidden=16,8", "--head-option", "activation=gelu", "--head-option", "pool=flatten"]
    run("fit", "tinynet", "--head", "mlp", *options, "--input-size", "20x24", "--cut", "stage1", "--epochs", 1,
        "--data", path, "-o", tmp_path / "out")  # fmt: skip
    facts = json.loads(run("info", tmp_path / "out", "--json").stdout)
    assert facts["model"]["head_options"] == {
        "pool": "flatten", "grid": 2, "hidden": [16, 8], "activation": "gelu", "dropout": 0.2,
    }  # fmt: skip
    assert facts["processor"]["config"]["shape"] == ["batch", 1, 20, 24]


def test_info_shows_what_a_head_can_be_asked_for(run):
    assert json.loads(run("info", "mlp", "--json").stdout)["head"]["options"]["hidden"] == [256]
    assert "head.options.activation relu" in " ".join(run("info", "mlp").stdout.split())


@pytest.mark.parametrize(
    ("arguments", "first", "second"),
    [
        (["--head-option", "hidden"], "error: --head-option hidden has no value", "NAME=VALUE"),
        (["--head-option", "hidden=1", "--head-option", "hidden=2"], "hidden is given more than once", "commas"),
        (["--head-option", "hiden=1"], "head 'linear' has no option 'hiden'", "known: grid, pool"),
        (["--head-option", "pool=sum"], "option 'pool' of head 'linear' cannot be 'sum'", "one of: grid, mean"),
        (
            ["--head", "q-values"],
            "'q-values' is for reinforcement-learning, which fit cannot",
            "linear, mlp",
        ),
        (["--input-size", "big"], "invalid --input-size 'big'", "150x200"),
        (["--input-size", "150x"], "invalid --input-size '150x'", "150x200"),
    ],
)
def test_fit_refuses_in_two_lines_before_it_reads_data(run, tmp_path, arguments, first, second):
    done = run("fit", "tinynet", *arguments, "--data", tmp_path / "nowhere", "-o", tmp_path / "out")
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert first in lines[0]
    assert second in lines[1]


def test_predict_prints_numbers(run, tmp_path):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(30, 1, 28, 28)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=x.mean((1, 2, 3)))
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "p.png")
    run("fit", "tinynet", "--head", "regression", "--data", tmp_path / "d.npz", "--epochs", 1, "-o", tmp_path / "out")
    (found,) = json.loads(run("predict", tmp_path / "out", tmp_path / "p.png", "--json").stdout)
    assert len(found["values"]) == 1
    assert f"{found['values'][0]:.6g}" in run("predict", tmp_path / "out", tmp_path / "p.png").stdout
    scores = json.loads(run("eval", tmp_path / "out", "--data", tmp_path / "d.npz", "--json").stdout)
    assert {"r2", "mean absolute error", "samples"} <= set(scores)
    assert "mean absolute error" in run("eval", tmp_path / "out", "--data", tmp_path / "d.npz").stdout


# -- a graph from elsewhere


@pytest.fixture
def theirs(fitted, tmp_path):
    """The graph of a bundle, alone, as another tool might have written it."""
    path = tmp_path / "theirs.onnx"
    path.write_bytes(fitted.graph("").read_bytes())
    return path


def test_compress_takes_an_onnx_file(run, theirs, few, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("\ufeff" + "\r".join(map(str, range(10))) + "\r\n", "utf8", newline="")
    result = run("compress", theirs, "--int8", "--data", few, "-o", tmp_path / "out", "--mean", "0.5", "--std", "0.5",
                 "--labels", labels, "--keep-slower", "--json")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    float_, _, int8 = json.loads(result.stdout)["measurements"]
    assert float_["accuracy"] is not None
    assert int8["precision"] == "int8"
    assert int8["bytes"] < float_["bytes"]
    assert (
        read_bundle(tmp_path / "out").manifest.input.mean
        == (0.5,) * read_bundle(tmp_path / "out").manifest.input.size[0]
    )


@pytest.fixture
def stacked(tmp_path) -> Path:
    """A layer that has no form in int8, behind one that has."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "known"], ["a"]),
        helper.make_node("Reshape", ["a", "rows"], ["b"]),
        helper.make_node("MatMul", ["b", "vector"], ["c"]),
        helper.make_node("Flatten", ["c"], ["y"]),
    ]
    values = {"known": rng.normal(size=(16, 24)), "vector": rng.normal(size=8)}
    constants = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in values.items()]
    constants.append(numpy_helper.from_array(np.array([-1, 3, 1, 8]), "rows"))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(64, 16)).astype(np.float32))
    return tmp_path / "m.onnx"


@pytest.mark.parametrize("flag", [["--dry-run"], []])
def test_a_layer_that_is_left_alone_is_named_with_the_reason(flag, run, stacked):
    options = ["--int8", "--data", stacked.with_name("d.npz"), "--keep-slower"]
    result = run("compress", stacked, *options, *(flag or ["-o", stacked.with_name("out")]))
    assert result.exit_code == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    if flag:
        assert "vector left alone: its weight is a vector" in lines
    else:
        assert lines[lines.index("left alone: 1 layer") + 1] == "vector its weight is a vector"
        assert read_bundle(stacked.with_name("out")).manifest.steps[-1].plan["layers"] == ["known"]


def test_compress_says_what_an_onnx_file_lacks(run, theirs, few, fitted, tmp_path):
    result = run("compress", theirs, "--int8", "--data", few, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "how this model preprocesses images is not known" in result.stderr
    assert "--mean and --std" in result.stderr
    result = run("compress", theirs, "--prune", 0.3, "--data", few, "-o", tmp_path / "out", "--mean", "0", "--std", "1")
    assert result.exit_code == 1
    assert "was imported as an ONNX graph and has no module" in result.stderr
    for model, options in ((fitted.path, ("--mean", "0.5")), (theirs, ("--mean", "half", "--std", "1"))):
        result = run("compress", model, "--int8", "--data", few, "-o", tmp_path / "out", *options)
        assert result.exit_code == 2
