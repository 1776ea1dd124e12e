"""Train an agent on a Gymnasium environment: a Q-network by double DQN.

Mnih et al. 2015 (doi:10.1038/nature14236): replay, a target network, random actions that become rare, the Huber loss.
Van Hasselt et al. 2015 (arXiv:1509.06461): the network chooses the action whose value the target network outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketzoo.core.errors import DataError, HeadMismatchError
from pocketzoo.core.files import replacing_file
from pocketzoo.core.keys import cache_key
from pocketzoo.core.names import check_suffix
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.typed import to_plain
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.train.agents.replay_buffer import Replay
from pocketzoo.train.agents.settings import AgentConfig, agent_settings
from pocketzoo.train.optimizer_step import OptimizerStep
from pocketzoo.train.snapshot import Part, SnapshotFile
from pocketzoo.zoo.bundles.bundle import Bundle, read_bundle, writing
from pocketzoo.zoo.bundles.manifest import ModelRef
from pocketzoo.zoo.bundles.plugin_source import plugin_sources
from pocketzoo.zoo.bundles.work_folder import check_outside, check_place, unfinished
from pocketzoo.zoo.catalog.head_task import answer_facts, head_task
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.gym_environments import Environment, episode_seed, play_episodes
from pocketzoo.zoo.models.build import build_parts
from pocketzoo.zoo.models.heads import plain_options
from pocketzoo.zoo.models.resolver import Parts, Resolver
from pocketzoo.zoo.models.save import save_model

SNAPSHOT = "agent.safetensors"
STATES = 2_048  # that are written to calibrate on


@survives_exit
def fit_agent(
    environment: str,
    out: str | Path,
    *,
    head: str = "q-values",
    head_options: Mapping[str, Any] | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    training: AgentConfig | Mapping[str, Any] | None = None,
    seed: int | None = None,
    states: str | Path | None = None,
    force: bool = False,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> Bundle:
    """Train a Q-network on ``environment``, such as "CartPole-v1", and write it as a bundle at ``out``.

    The network is the "mlp" backbone, 64-64 unless ``backbone_options`` say otherwise, and a linear head;
    ``head_options`` of "q-values" can make it dueling. Training ends when the mean return over evaluation episodes
    reaches the goal, or after ``training``'s steps. The weights are those of the best evaluation; ``test_return`` is
    their mean return over as many further episodes. ``states`` is an ``.npz`` to save visited states in, for
    calibrating int8. ``force`` replaces a finished bundle at ``out``.

    Deterministic for a seed; a killed run resumes from its last evaluation when the same call is made again.

    Raises:
        BundleError: ``out`` is a finished bundle, or something else.
        MissingDependencyError: gymnasium is not installed.
        UnknownNameError: there is no such environment.
        DataError: its states are not vectors, or its actions are not numbered; or the loss was never finite.
        HeadMismatchError: the head outputs no q-values.
        RecipeError: an option or a setting cannot be what it is.
        BusyError: another run is writing ``out``.
    """
    check_place(Path(out), force=force)
    if states is not None:
        check_suffix(Path(states), [".npz"], "an .npz file")
        check_outside(Path(states), "choose another place with --states")
    config = agent_settings(training, seed=seed)
    resolver = Resolver.of(registry)
    place = Environment(environment)
    options = {"input": (place.size,), "hidden": (64, 64), **(backbone_options or {})}
    ref = ModelRef(
        backbone="mlp",
        head=head,
        outputs=place.actions,
        head_options=plain_options(resolver.spec("head", head), {"hidden": (), **(head_options or {})}),
        backbone_options=plain_options(resolver.spec("backbone", "mlp"), options),
    )
    parts = resolver.parts(ref)
    task = head_task(parts.head, parts.backbone.input, resolver.registry)
    if not task.facts.get("acts"):
        raise HeadMismatchError(f"head {head!r} is for {task.name}", "an agent needs a q-values head")
    if [tensor.sample_shape for tensor in parts.processor.inputs] != [(place.size,)]:
        raise HeadMismatchError(f"the states of {environment} have {place.size} values", "leave out the option input")
    torch.manual_seed(config.seed)
    sources = plugin_sources(resolver.registry, resolver.entry("backbone", "mlp"), resolver.entry("head", head))
    facts = {"environment": environment, "model": ref, "config": config, "sources": sources}
    key = cache_key("agent", **facts, torch=torch.__version__, gymnasium=version("gymnasium"))
    with unfinished(Path(out), key, progress, _left, force=force) as folder:
        agent = Agent(build_parts(ref, parts), parts.head.loss, place, config, folder / SNAPSHOT, progress)
        agent.run()
        test = agent.evaluate(agent.best, episode_seed(config.seed, "test"))
        progress.say(f"mean return over {config.episodes} evaluation episodes: {test:.1f}")
        if states is not None:  # before the bundle: once that is there the run is finished
            _write_states(Path(states), agent.replay, config.seed)
        _save(Path(out), force, folder, agent, ref, parts, test, resolver.registry)
    return read_bundle(Path(out))


@dataclass
class Career:
    """How training went, and where it stands. All of it goes into a snapshot."""

    step: int = 0
    episode: int = 0
    learned: int = 0  # steps of learning
    returns: list[float] = field(default_factory=list)  # the mean of each evaluation
    at: list[int] = field(default_factory=list)  # the step of each
    best_step: int = 0
    chance: dict[str, Any] = field(default_factory=dict)  # state of the generator
    added: int = 0  # to the replay
    ended: str = ""  # why it stopped


class Agent:
    """A Q-network that learns, with all that it learns from."""

    def __init__(
        self,
        net: nn.Module,
        loss: str,
        environment: Environment,
        config: AgentConfig,
        place: Path | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self.net, self.environment, self.config, self.progress = net, environment, config, progress
        self.loss, self.target = getattr(F, loss), copy.deepcopy(net)
        self.best = copy.deepcopy(net)
        self.optimizer = torch.optim.Adam(net.parameters(), config.learning_rate, fused=True)
        self.step, self.snapshot = OptimizerStep(config.clip), SnapshotFile(place)
        self.replay = Replay(config.capacity, environment.size)
        self.generator = np.random.default_rng(config.seed)
        self.career = Career()
        self.goal = environment.goal if config.goal is None else config.goal

    def run(self) -> None:
        """Play and learn, until the goal is reached or the steps are used up. Goes on from a snapshot if there is one.

        Snapshots are taken between episodes, because the state of an environment cannot be kept; its seed can.
        """
        self._restore()
        career, config = self.career, self.config
        while not career.ended:
            before = career.step
            self._episode()
            due = career.step // config.evaluate_every > before // config.evaluate_every
            if due or career.step >= config.steps:
                self._close()

    def act(self, state: npt.NDArray[np.float32]) -> int:
        """The best action, or in some steps any."""
        if self.generator.random() < self.config.exploration(self.career.step):
            return int(self.generator.integers(self.environment.actions))
        with torch.no_grad():
            return int(self.net(torch.from_numpy(state)[None]).argmax())

    def learn(self) -> None:
        """One step of double DQN on transitions drawn from the replay."""
        batch = self.replay.sample(self.config.batch_size, self.generator)
        with torch.no_grad():
            chosen = self.net(batch.following).argmax(-1, keepdim=True)
            future = self.target(batch.following).gather(1, chosen)[:, 0]
            targets = batch.rewards + self.config.discount * (1.0 - batch.ended) * future
        values = self.net(batch.states).gather(1, batch.actions[:, None])[:, 0]
        loss: Tensor = self.loss(values, targets)
        self.step.gradients(self.optimizer, [loss])
        self.step.update(self.optimizer)  # a loss that is not finite shows in the parameters, which ``_close`` looks at
        self.career.learned += 1
        if self.career.learned % self.config.target_every == 0:
            self.target.load_state_dict(self.net.state_dict())

    def evaluate(self, net: nn.Module, first: int) -> float:
        """The mean return of a network's best actions over episodes whose seeds begin at ``first``."""

        def policy(states: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
            with torch.no_grad():
                return net(torch.from_numpy(states)).argmax(-1).numpy()  # type: ignore[no-any-return]

        return float(play_episodes(self.environment.name, policy, range(first, first + self.config.episodes)).mean())

    def _episode(self) -> None:
        career, config = self.career, self.config
        self.net.train()
        state = self.environment.reset(episode_seed(config.seed, "train", career.episode))
        career.episode += 1
        done = False
        while not done:
            action = self.act(state)
            following, reward, terminated, truncated = self.environment.step(action)
            self.replay.add(state, action, reward, following, terminated)
            state, done = following, terminated or truncated
            career.step += 1
            if career.step >= config.warm_up and career.step % config.learn_every == 0:
                self.learn()

    def _close(self) -> None:
        """Evaluate, note the best, and keep everything."""
        career, config = self.career, self.config
        self.net.eval()
        number = len(career.returns)
        if not all(torch.isfinite(p).all() for p in self.net.parameters()):
            if not number:
                raise DataError(f"the loss is not finite before step {career.step}", "lower the learning rate")
            career.ended = f"the loss is not finite before step {career.step}"
        else:
            value = self.evaluate(self.net, episode_seed(config.seed, "validate", number * config.episodes))
            if not career.returns or value > max(career.returns):
                self.best.load_state_dict(self.net.state_dict())
                career.best_step = career.step
            career.returns.append(value)
            career.at.append(career.step)
            if self.goal is not None and value >= self.goal:
                career.ended = f"a mean return of {value:.1f}, the goal is {self.goal:g}"
            elif career.step >= config.steps:
                career.ended = f"all {career.step} steps are done"
        self.progress.say(f"step {career.step}: mean return {career.returns[-1]:.1f} {career.ended}".rstrip())
        self._keep()

    def _parts(self) -> dict[str, Part]:
        return {
            "net": self.net,
            "target": self.target,
            "best": self.best,
            "optimizer": self.optimizer,
            "replay": self.replay,
        }

    def _keep(self) -> None:
        self.career.chance, self.career.added = self.generator.bit_generator.state, self.replay.added  # type: ignore[assignment]
        self.snapshot.keep(self.career, **self._parts())

    def _restore(self) -> None:
        career = self.snapshot.record(Career)
        if career is None:
            return
        self.career, self.replay.added, self.generator.bit_generator.state = career, career.added, career.chance
        self.snapshot.load(**self._parts())
        self.progress.say(f"resuming after step {career.step} of an earlier run")


def _left(folder: Path) -> str:
    """What an interrupted run can resume from."""
    return "what was learned" if (folder / SNAPSHOT).is_file() else ""


def _save(
    out: Path, force: bool, work: Path, agent: Agent, ref: ModelRef, parts: Parts, test: float, registry: Registry
) -> None:
    career = agent.career
    training = {
        **to_plain(agent.config),
        "returns": {str(step): value for step, value in zip(career.at, career.returns, strict=True)},
        "best_step": career.best_step,
        "stopped": career.ended,
    }
    with writing(out, force=force, work=work) as draft:
        save_model(
            draft,
            agent.best.eval(),
            ref,
            name=out.name,
            labels=(),
            answers=answer_facts(parts.head, parts.backbone.input, registry),
            license=parts.backbone.license,
            input_spec=parts.backbone.input,
            processor=parts.processor,
            registry=registry,
            provenance={
                "environment": agent.environment.name,
                "gymnasium": version("gymnasium"),
                "training": training,
                "torch": version("torch"),
            },
            metrics={
                "val_return": max(career.returns),
                "test_return": test,
                "steps": career.step,
                "episodes": career.episode,
            },
        )


def _write_states(path: Path, replay: Replay, seed: int) -> None:
    """States of the replay as a data set: an ``.npz`` with ``x``."""
    rows = np.random.default_rng(seed).permutation(len(replay))[:STATES]
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, x=replay.states.numpy()[rows])
