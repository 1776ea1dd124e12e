"""Agents: values against those that are known, bits that are the same after a kill, int8 that still plays, refusals."""

from __future__ import annotations

import copy
import dataclasses
import inspect

import corridor
import numpy as np
import pytest
import torch
from feeds import only
from told import Told
from torch import nn

import pocketzoo
from pocketzoo.compress.configs import Int8Config
from pocketzoo.core.errors import BundleError, DataError, HeadMismatchError, RecipeError, UnknownNameError
from pocketzoo.core.progress import Silent
from pocketzoo.train.agents.double_dqn import Agent, fit_agent
from pocketzoo.train.agents.replay_buffer import Replay
from pocketzoo.train.agents.settings import SAYS, AgentConfig, agent_settings
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.data.gym_environments import Environment, episode_seed

QUICK = {
    "steps": 1500, "warm_up": 50, "explore_steps": 600, "evaluate_every": 500, "episodes": 8, "learning_rate": 5e-3,
    "discount": 0.9, "target_every": 20, "goal": 2.0,
    "learn_every": 2, "batch_size": 64,
}  # fmt: skip
SMALL = {"hidden": (16,)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent")
    bundle = fit_agent(
        "Corridor-v0", folder / "out", backbone_options=SMALL, training=QUICK, states=folder / "states.npz"
    )
    return bundle, folder / "states.npz"


def test_its_values_are_the_optimal_ones(trained):
    """From place p the reward is 4 - p steps away: Q(p, on) = 0.9^(3 - p), and going back costs two steps more."""
    bundle, _ = trained
    with OnnxRunner(bundle.graph()) as runner:
        values = only(runner, np.eye(corridor.LENGTH, dtype=np.float32))
    on = 0.9 ** np.arange(3.0, -1, -1)
    back = 0.9 * on[[0, 0, 1, 2]]
    np.testing.assert_allclose(values, np.stack([back, on], 1), atol=0.05)


def test_the_bundle_says_how_it_went(trained):
    bundle, _ = trained
    manifest = read_bundle(bundle.path).manifest
    assert manifest.task == "reinforcement-learning"
    assert (manifest.metrics["val_return"], manifest.metrics["test_return"]) == (1.0, 1.0)
    assert manifest.provenance["environment"] == "Corridor-v0"
    assert len(manifest.provenance["training"]["returns"]) == 3
    assert manifest.provenance["training"]["stopped"].endswith("steps are done")
    assert manifest.model.backbone_options["hidden"] == [16]


def test_int8_of_it_plays_as_well(trained, tmp_path):
    bundle, states = trained
    pocketzoo.compress(bundle.path, tmp_path / "small", data=states, steps=[Int8Config()], keep_slower=True)
    played = pocketzoo.play(tmp_path / "small", episodes=10)
    assert played.graph == "model.int8.cpu.onnx"
    assert played.returns == (1.0,) * 10


def test_a_time_limit_is_no_end(tmp_path):
    """Where every step earns 1 and none is the last, all values are 1 / (1 - 0.5)."""
    training = {**QUICK, "discount": 0.5}
    bundle = fit_agent("Endless-v0", tmp_path / "out", backbone_options=SMALL, training=training)
    with OnnxRunner(bundle.graph()) as runner:
        np.testing.assert_allclose(only(runner, np.eye(4, dtype=np.float32)), 2.0, atol=0.05)


def test_it_stops_at_the_environments_goal(tmp_path):
    training = {**QUICK, "goal": None, "steps": 100_000}
    bundle = fit_agent("Corridor-v0", tmp_path / "out", backbone_options=SMALL, training=training)
    assert bundle.manifest.metrics["steps"] < 3_000
    assert bundle.manifest.provenance["training"]["stopped"] == "a mean return of 1.0, the goal is 1"


class Killed(Silent):
    """Ends the run when it says something for the third time: behind the second snapshot."""

    said = 0

    def say(self, text: str) -> None:
        self.said += 1
        if self.said == 3:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_after_a_kill_it_goes_on_to_the_same_bits(trained, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit_agent("Corridor-v0", tmp_path / "out", backbone_options=SMALL, training=QUICK, progress=Killed())
    assert not (tmp_path / "out").exists()
    bundle = fit_agent("Corridor-v0", tmp_path / "out", backbone_options=SMALL, training=QUICK)
    whole, _ = trained
    assert bundle.file("model.safetensors").read_bytes() == whole.file("model.safetensors").read_bytes()
    assert bundle.manifest.provenance["training"] == whole.manifest.provenance["training"]


def test_a_loss_that_is_not_finite_is_said(tmp_path, refused):
    with refused(DataError, "the loss is not finite before step"):
        fit_agent("Corridor-v0", tmp_path / "out", training={**QUICK, "learning_rate": 1e38})


def test_the_target_network_is_a_copy_of_a_while_ago():
    net = nn.Linear(4, 2)
    config = AgentConfig(target_every=3, batch_size=4)
    agent = Agent(net, "smooth_l1_loss", Environment("Corridor-v0"), config)
    for _ in range(5):
        agent.replay.add(np.ones(4, np.float32), 0, 1.0, np.ones(4, np.float32), True)
    start = net.weight.detach().clone()
    agent.learn()
    agent.learn()
    assert torch.equal(agent.target.weight, start)
    assert not torch.equal(net.weight, start)
    agent.learn()
    assert torch.equal(agent.target.weight, net.weight)


def test_exploration_falls_and_stays():
    config = AgentConfig(explore_from=1.0, explore_to=0.2, explore_steps=100)
    assert [round(config.exploration(step), 6) for step in (0, 50, 100, 1000)] == [1.0, 0.6, 0.2, 0.2]


def test_a_full_replay_forgets_the_oldest():
    replay = Replay(3, 1)
    for i in range(5):
        replay.add(np.float32([i]), i, float(i), np.float32([i + 1]), i == 4)
    batch = replay.sample(200, np.random.default_rng(0))
    assert len(replay) == 3
    assert set(batch.actions.tolist()) == {2, 3, 4}
    assert torch.equal(batch.following, batch.states + 1)
    assert torch.equal(batch.ended, (batch.actions == 4).float())
    other = Replay(3, 1)
    other.load({name: value.clone() for name, value in replay.state().items()})
    other.added = replay.added
    assert torch.equal(
        other.sample(9, np.random.default_rng(1)).states, replay.sample(9, np.random.default_rng(1)).states
    )


def test_every_setting_is_said():
    assert set(SAYS) == set(AgentConfig.__dataclass_fields__)


@pytest.mark.parametrize(
    ("given", "text"),
    [({"steps": "0"}, "steps cannot be 0"), ({"discount": 2}, "discount cannot be 2"),
     ({"step": 1}, "no option 'step'"), ({"learning_rate": "0"}, "learning_rate cannot be 0")],
)  # fmt: skip
def test_settings_that_cannot_be(given, text, refused):
    with refused(RecipeError, text):
        agent_settings(given)


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [("Corridorr-v0", UnknownNameError, "Gymnasium has no"), ("Pendulum-v1", DataError, "the actions of Pendulum-v1"),
     ("FrozenLake-v1", DataError, "the states of FrozenLake-v1")],
)  # fmt: skip
def test_environments_that_cannot_be(tmp_path, name, error, text, refused):
    with refused(error, text):
        fit_agent(name, tmp_path / "out")


def test_what_is_no_agent_is_refused(fitted, trained, tmp_path, refused):
    with refused(HeadMismatchError, "is for tabular-classification"):
        fit_agent("Corridor-v0", tmp_path / "out", head="mlp")
    with refused(DataError, "is for image-classification and takes no actions"):
        pocketzoo.play(fitted.path)
    with refused(DataError, "Acrobot-v1 has states of 6 values and 3 actions"):
        pocketzoo.play(trained[0].path, "Acrobot-v1")


def test_a_finished_agent_is_not_replaced_unless_told_so(trained, refused):
    bundle, states = trained
    before = states.read_bytes()
    with refused(BundleError, f"{bundle.path} is already a finished bundle", hint="--force"):
        fit_agent("NoSuchPlace-v0", bundle.path, states=states)
    assert (read_bundle(bundle.path), states.read_bytes()) == (bundle, before)


@pytest.mark.slow
def test_the_commands(run, tmp_path):
    out, states = tmp_path / "out", tmp_path / "states.npz"
    settings = [part for name, value in QUICK.items() for part in ("--set", f"{name}={value}")]
    done = run("fit-agent", "Corridor-v0", "--backbone-option", "hidden=16", *settings, "--states", states, "-o", out)
    assert "test return  1" in done.stdout
    assert np.load(states)["x"].shape[1] == 4
    shown = run("play", out, "--episodes", 5, "--json")
    assert '"mean": 1.0' in shown.stdout


# -- the key of a run


class Asked(BaseException):
    """Ends a run where it asks for its unfinished work."""


@pytest.fixture
def key_of(tmp_path, monkeypatch):
    """The key that a call of ``fit_agent`` has, before anything is trained."""

    def unfinished(out, key, *others, **more):
        raise Asked(key)

    def call(**changes) -> str:
        with pytest.raises(Asked) as caught:
            fit_agent(out=tmp_path / "out", **{"environment": "Corridor-v0", "training": QUICK, **changes})
        return str(caught.value)

    monkeypatch.setattr("pocketzoo.train.agents.double_dqn.unfinished", unfinished)
    return call


def test_every_argument_that_decides_what_is_made_is_in_the_key(key_of, monkeypatch, tmp_path):
    changes = {
        "environment": {"environment": "CartPole-v1"},
        "head": None,  # no other head gives q-values
        "head_options": {"head_options": {"dueling": "true"}},
        "backbone_options": {"backbone_options": SMALL},
        "seed": {"seed": 1},
        "training": {"training": {**QUICK, "clip": 1.0}},
    }
    assert set(changes) | {"out", "states", "force", "registry", "progress"} == set(
        inspect.signature(fit_agent).parameters
    )
    keys = {name: key_of(**change) for name, change in changes.items() if change is not None}
    keys["nothing"] = key_of()
    assert keys["nothing"] == key_of(states=tmp_path / "states.npz", force=True)
    for field in dataclasses.fields(AgentConfig):
        value = {**dataclasses.asdict(AgentConfig()), **QUICK}[field.name]
        other = value + 1 if isinstance(value, int) else value / 2
        keys[field.name] = key_of(training={**QUICK, field.name: other})
    del keys["seed"]  # the argument is the setting
    monkeypatch.setattr(torch, "__version__", "0.0")
    keys["torch"] = key_of()
    assert len(set(keys.values())) == len(keys), keys


class Watched(Agent):
    """Notes when it learns and how it is looked at; no evaluation is any good."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)
        self.learned_at: list[int] = []
        self.evaluated: list[tuple[int, bool]] = []

    def learn(self) -> None:
        self.learned_at.append(self.career.step)
        assert self.net.training
        super().learn()

    def evaluate(self, net: nn.Module, first: int) -> float:
        self.evaluated.append((first, net.training))
        return float(-len(self.evaluated))


def test_it_learns_and_is_evaluated_as_often_as_it_is_told():
    """In training mode it plays and learns, in evaluation mode it is judged: a dropout acts in one of them alone."""
    config = AgentConfig(steps=60, warm_up=12, learn_every=5, evaluate_every=25, episodes=3, batch_size=4, goal=9.0)
    agent = Watched(nn.Linear(4, 2), "smooth_l1_loss", Environment("Corridor-v0"), config)
    agent.run()
    last = agent.career.step
    assert agent.learned_at == [step for step in range(1, last + 1) if step >= 12 and step % 5 == 0]
    assert agent.career.learned == len(agent.learned_at)
    assert agent.evaluated == [(episode_seed(0, "validate", 3 * n), False) for n in range(len(agent.evaluated))]
    assert [at // 25 for at in agent.career.at[: last // 25]] == list(range(1, last // 25 + 1))
    assert agent.career.at[-1] == last
    assert agent.career.best_step == agent.career.at[0], "the first is the best, as each is worse"
    assert agent.career.ended == f"all {last} steps are done"
    assert last >= 60


@pytest.mark.parametrize("snapshots", [1, 2])
def test_what_goes_on_after_a_kill_has_all_that_the_whole_run_has(snapshots, tmp_path):
    """All of it counts: what is drawn from the replay, when the target was copied, how far Adam is, which was best."""
    config = AgentConfig(steps=90, warm_up=12, learn_every=3, evaluate_every=25, episodes=1, batch_size=16,
                         target_every=11, capacity=60, goal=9.0)  # fmt: skip
    net = nn.Linear(4, 2)

    def agent(place, progress=None):
        given = (copy.deepcopy(net), "smooth_l1_loss", Environment("Corridor-v0"), config, tmp_path / place)
        return Agent(*given, progress or Silent())

    class Ends(Silent):
        left = snapshots

        def say(self, text: str) -> None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

    whole, told = agent("whole"), Told()
    whole.run()
    with pytest.raises(KeyboardInterrupt):
        agent("cut", Ends()).run()
    again = agent("cut", told)
    again.run()
    assert told.said[0] == f"resuming after step {whole.career.at[snapshots - 1]} of an earlier run"
    assert again.career == whole.career
    assert again.generator.bit_generator.state == whole.generator.bit_generator.state
    for one, other in ((again.net, whole.net), (again.target, whole.target), (again.best, whole.best)):
        assert all(torch.equal(one.state_dict()[name], value) for name, value in other.state_dict().items())
    held = again.replay.state(), whole.replay.state()
    assert len(again.replay) == 60
    assert all(torch.equal(held[0][name], value) for name, value in held[1].items())
    moments = [[s["exp_avg"] for s in each.optimizer.state.values()] for each in (again, whole)]
    assert all(map(torch.equal, *moments))
