"""Outputs that are the next call's inputs, on an LSTM's step exported from torch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from artifactgraphs import HIDDEN, STATES, WIDTH, listener, random, start
from onnx import helper, numpy_helper

from pocketzoo.core.errors import BundleError, DataError
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.artifacts.drivers import ends, open_artifact
from pocketzoo.zoo.artifacts.stateful import StatefulRunner
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec
from pocketzoo.zoo.graphs.states import check_states, evident_states
from pocketzoo.zoo.models.import_onnx import open_graph


@pytest.fixture(scope="module")
def listening(tmp_path_factory):
    path = tmp_path_factory.mktemp("listener") / "listener.onnx"
    module = listener(path)
    return module, Artifact(graphs={"model": path}, driver="stateful", states=STATES)


def by_torch(module, sequences, state=None):
    """Scores (B, calls, 1) and the last state, by torch's own loop."""
    state = torch.zeros(2, len(sequences), HIDDEN) if state is None else torch.tensor(state)
    scores = []
    with torch.no_grad():
        for call in torch.tensor(sequences).unbind(1):
            score, state = module(call, state)
            scores.append(score)
    return torch.stack(scores, 1).numpy(), state.numpy()


@pytest.mark.parametrize(("batch", "calls"), [(1, 1), (3, 7)])
def test_a_sequence_is_run_as_torch_runs_it(listening, batch, calls):
    module, artifact = listening
    sequences = random(batch, calls, WIDTH)
    with open_artifact(artifact, start) as runner:
        outputs = runner.infer({"piece": sequences})
        again = runner.infer({"piece": sequences})
    scores, state = by_torch(module, sequences)
    np.testing.assert_allclose(outputs["score"], scores, atol=1e-6)
    np.testing.assert_allclose(outputs["stateN"], state, atol=1e-6)
    assert all(np.array_equal(outputs[name], again[name]) for name in outputs), "each sequence begins anew"


def test_the_state_makes_a_difference_and_may_be_given(listening):
    module, artifact = listening
    sequences, state = random(2, 3, WIDTH), random(2, 2, HIDDEN, seed=1)
    with open_artifact(artifact, start) as runner:
        from_zeros = runner.infer({"piece": sequences})
        from_state = runner.infer({"piece": sequences, "state": state})
    assert not np.allclose(from_zeros["score"], from_state["score"], atol=1e-3)
    np.testing.assert_allclose(from_state["score"], by_torch(module, sequences, state)[0], atol=1e-6)


def test_sequences_of_a_batch_do_not_see_each_other(listening):
    _, artifact = listening
    sequences = random(4, 5, WIDTH)
    with open_artifact(artifact, start) as runner:
        whole = runner.infer({"piece": sequences})
        alone = [runner.infer({"piece": sequences[i : i + 1]}) for i in range(4)]
    np.testing.assert_allclose(whole["score"], np.concatenate([each["score"] for each in alone]), atol=1e-6)
    np.testing.assert_allclose(whole["stateN"], np.concatenate([each["stateN"] for each in alone], 1), atol=1e-6)


def test_calls_one_by_one_are_the_sequence_and_reset_begins_another(listening):
    _, artifact = listening
    sequences = random(2, 4, WIDTH)
    with open_artifact(artifact, start) as runner:
        assert isinstance(runner, StatefulRunner)
        whole, stream = runner.infer({"piece": sequences}), runner.stream()
        for turn in range(2):
            for i in range(4):
                score = stream.infer({"piece": sequences[:, i]})
                assert set(score) == {"score"}
                np.testing.assert_allclose(score["score"], whole["score"][:, i], atol=1e-6, err_msg=str(turn))
            stream.reset()
        stream.infer({"piece": sequences[:, 0]})
        with pytest.raises(DataError, match="a batch of 1 follows one of 2") as error:
            stream.infer({"piece": sequences[:1, 0]})
        assert "reset between sequences" in error.value.hint


def test_the_signature_is_of_sequences(listening):
    _, artifact = listening
    with open_artifact(artifact, start) as runner:
        signature = runner.signature
    assert [(spec.name, spec.shape) for spec in signature.inputs] == [("piece", ("batch", "calls", WIDTH))]
    score, state = signature.outputs
    assert score.shape[1] == "calls"
    assert (state.name, len(state.shape)) == ("stateN", 3)


def test_what_the_graph_reads_at_each_call_is_what_it_is_calibrated_on(listening):
    module, artifact = listening
    samples = [{"piece": random(2, 3, WIDTH)}, {"piece": random(1, 2, WIDTH, seed=1)}]
    (end,) = ends(artifact)
    calls = end.calls("model", samples, start)
    for _ in range(2):  # as often as one likes
        feeds = list(calls)
        assert [feed["piece"].shape for feed in feeds] == [(2, WIDTH)] * 3 + [(1, WIDTH)] * 2
        assert not feeds[0]["state"].any()
        assert not feeds[3]["state"].any()
        np.testing.assert_allclose(feeds[2]["state"], by_torch(module, samples[0]["piece"][:, :2])[1], atol=1e-6)


def test_outputs_are_written_where_one_says(listening):
    _, artifact = listening
    out = np.empty((1, 2, 1), np.float32)
    with open_artifact(artifact, start) as runner:
        outputs = runner.infer({"piece": random(1, 2, WIDTH)}, {"score": out})
        assert outputs["score"] is out
        with pytest.raises(DataError, match="no output 'other'"):
            runner.infer({"piece": random(1, 2, WIDTH)}, {"other": out})
        with pytest.raises(DataError, match="out for 'score' is float32"):
            runner.infer({"piece": random(1, 3, WIDTH)}, {"score": out})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "the input 'piece' is missing"),
        ({"piece": random(1, 2, WIDTH), "other": random(1)}, "no input 'other'"),
        ({"piece": random(1, 0, WIDTH)}, "not sequences of one length"),
        ({"piece": random(3)}, "not sequences of one length"),
    ],
)
def test_inputs_that_are_no_sequences_are_refused(listening, inputs, message):
    _, artifact = listening
    with open_artifact(artifact, start) as runner, pytest.raises(DataError, match=message) as error:
        runner.infer(inputs)
    assert error.value.hint


def test_a_time_is_of_one_call(listening):
    _, artifact = listening
    (end,) = ends(artifact)
    with end.open(start) as runner:
        run, calls = end.timed(runner, {"piece": random(2, 9, WIDTH)})
        run()
    assert (calls, end.unit) == (9, "call")


# -- which output feeds which input


def tensor(name, *shape, dtype="float32"):
    return TensorSpec(name=name, shape=shape, dtype=dtype, batch=None)


SIGNATURE = ModelSignature(
    inputs=(tensor("x", "n", 4), tensor("state", 2, "n", 8), tensor("count", 1, dtype="int64")),
    outputs=(tensor("y", "n", 1), tensor("stateN", 2, "m", 8), tensor("long", 1), tensor("other", 2, "n", 9)),
)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ({}, "needs states"),
        ({"nowhere": "state"}, "no output 'nowhere'"),
        ({"stateN": "nowhere"}, "no input 'nowhere'"),
        ({"stateN": "state", "other": "state"}, "two outputs feed the input 'state'"),
        ({"other": "state"}, r"cannot be the input 'state'"),
        ({"y": "state"}, r"cannot be the input 'state'"),
        ({"long": "count"}, r"cannot be the input 'count'"),
    ],
)
def test_states_that_cannot_be_are_refused(states, message):
    with pytest.raises(BundleError, match=message) as error:
        check_states(SIGNATURE, states)
    assert error.value.hint


def test_states_that_can_be_are_not():
    check_states(SIGNATURE, {"stateN": "state"})


@pytest.mark.parametrize(
    ("given", "output"),
    [("state", "stateN"), ("h", "hn"), ("h_in", "h_out"), ("past.0.key", "present.0.key"), ("cache", "new_cache")],
)
def test_names_that_make_a_state_evident_are_only_a_hint(given, output):
    signature = ModelSignature(inputs=(tensor("x", 1), tensor(given, 2, 8)), outputs=(tensor(output, 2, 8),))
    assert evident_states(signature) == {output: given}
    unlike = ModelSignature(inputs=(tensor(given, 2, 8, dtype="int64"),), outputs=(tensor(output, 2, 8),))
    assert evident_states(unlike) == {}


def test_a_state_of_no_known_size_has_to_be_given():
    from pocketzoo.zoo.artifacts.stateful import zeros

    with pytest.raises(BundleError, match="says no size"):
        zeros(tensor("state", 2, "somehow"), 1)
    assert zeros(TensorSpec(name="s", shape=(2, "n", 3), batch=1), 4).shape == (2, 4, 3)
    assert zeros(TensorSpec(name="s", shape=(2, "n", "past"), batch=1), 4, growing=2).shape == (2, 4, 0)


# -- states that grow


CACHE = {"present_k": "past_k", "present_v": "past_v"}


def attending(path, past="past", total="total", mask=False, shown=False):
    """One step of attention (batch, 1, 4) over the keys and values of all steps before, and its own."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(4, 4)).astype(np.float32) for name in ("q", "k", "v")}
    nodes = [
        *(helper.make_node("MatMul", ["x", name], [f"{name}x"]) for name in weights),
        *(helper.make_node("Concat", [f"past_{n}", f"{n}x"], [f"present_{n}"], axis=1) for n in "kv"),
        helper.make_node("Transpose", ["present_k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["qx", "kt"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["weights"]),
        helper.make_node("Mul", ["weights", "mask"], ["masked"]) if mask else None,
        helper.make_node("MatMul", ["masked" if mask else "weights", "present_v"], ["y"]),
    ]
    inputs = {"x": ["batch", 1, 4], "past_k": ["batch", past, 4], "past_v": ["batch", past, 4]}
    outputs = {"y": ["batch", 1, 4], "present_k": ["batch", total, 4], "present_v": ["batch", total, 4]}
    inputs |= {"mask": ["batch", 1, total]} if mask else {}
    outputs |= {"weights": ["batch", 1, total]} if shown else {}
    graph = helper.make_graph(
        [node for node in nodes if node is not None],
        "g",
        [helper.make_tensor_value_info(name, 1, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, 1, dims) for name, dims in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return weights


def by_hand(x, weights):
    """The same in numpy, of whole sequences (batch, calls, 1, 4)."""
    q, k, v = ((x @ weights[name])[:, :, 0] for name in "qkv")
    out = []
    for call in range(x.shape[1]):
        scores = np.exp(np.einsum("bd,bcd->bc", q[:, call], k[:, : call + 1]))
        out.append(np.einsum("bc,bcd->bd", scores / scores.sum(1, keepdims=True), v[:, : call + 1]))
    return np.stack(out, 1)[:, :, None], k, v


def test_a_state_that_grows_begins_with_nothing(tmp_path):
    weights = attending(tmp_path / "m.onnx")
    artifact = Artifact(graphs={"model": tmp_path / "m.onnx"}, driver="stateful", states=CACHE)
    x = random(2, 5, 1, 4)
    with open_artifact(artifact, start) as runner:
        outputs = runner.infer({"x": x})
        reads = list(runner.graph_inputs({"x": x}))
    for name, value in zip(("y", "present_k", "present_v"), by_hand(x, weights), strict=True):
        np.testing.assert_allclose(outputs[name], value, atol=1e-5)
    assert [each["past_k"].shape for each in reads] == [(2, calls, 4) for calls in range(5)]


def test_a_state_that_grows_is_calibrated_over_sequences_and_said(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    attending("m.onnx")
    np.savez("d.npz", x=random(30, 4, 1, 4))
    states = [word for output, fed in CACHE.items() for word in ("--state", f"{output}={fed}")]
    result = run("compress", "m.onnx", *states, "--int8", "--data", "d.npz", "-o", "small", "--keep-slower", "--accept")
    assert result.exit_code == 0, result.stderr
    assert "past_k, past_v: longer after each call along axis 1 ('past'), from length 0 on" in result.stderr
    report = read_bundle("small").manifest.steps[-1].report
    assert set(report.outputs) == {"y", "present_k", "present_v"}
    assert all(sqnr is None or sqnr > 20 for sqnr in report.outputs.values())


def test_what_would_have_to_grow_with_a_state_is_named(tmp_path, refused):
    attending(tmp_path / "masked.onnx", mask=True)
    with refused(BundleError, "'mask' is as long along axis 2 ('total') as 'present_k', longer at each call"):
        open_graph(tmp_path / "masked.onnx", states=CACHE)
    attending(tmp_path / "shown.onnx", shown=True)
    artifact = Artifact(graphs={"model": tmp_path / "shown.onnx"}, driver="stateful", states=CACHE)
    with open_artifact(artifact, start) as runner, refused(BundleError, "'weights' has another shape at each call"):
        runner.infer({"x": random(1, 2, 1, 4)})
    attending(tmp_path / "same.onnx", past="t", total="t")
    artifact = Artifact(graphs={"model": tmp_path / "same.onnx"}, driver="stateful", states=CACHE)
    with open_artifact(artifact, start) as runner, refused(BundleError, "says no size of axis 1 ('t')"):
        runner.infer({"x": random(1, 2, 1, 4)})
