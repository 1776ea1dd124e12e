"""Outputs that are the next call's inputs, on an LSTM's step exported from torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from artifactgraphs import HIDDEN, STATES, WIDTH, listener, random, start

from pocketzoo.core.errors import BundleError, DataError
from pocketzoo.zoo.artifacts.driver import Artifact
from pocketzoo.zoo.artifacts.drivers import ends, open_artifact
from pocketzoo.zoo.artifacts.stateful import StatefulRunner
from pocketzoo.zoo.catalog.signature import ModelSignature, TensorSpec
from pocketzoo.zoo.graphs.states import check_states, evident_states


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
