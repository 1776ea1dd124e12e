"""The ``play`` function: episodes of an environment, played by the graph of a Q-network, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.core.errors import DataError
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.task import Estimate
from pocketzoo.zoo.data.gym_environments import Environment, episode_seed, play_episodes
from pocketzoo.zoo.data.processors.open_processor import processor_of
from pocketzoo.zoo.models.open_model import open_model
from pocketzoo.zoo.models.resolver import Resolver
from pocketzoo.zoo.tasks.open_task import need_task


@dataclass(frozen=True, slots=True)
class Played:
    """The returns of the episodes that were played."""

    environment: str
    graph: str
    returns: tuple[float, ...]  # of each episode, not discounted
    estimate: Estimate | None = None  # their mean, with its interval

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns))


@survives_exit
def play(
    model: str | Path,
    environment: str = "",
    *,
    episodes: int = 100,
    target: str = "cpu",
    seed: int = 0,
    registry: Registry | Resolver | None = None,
    progress: Progress = SILENT,
) -> Played:
    """Play ``episodes`` with the greedy action in each state, in the environment of training or another.

    Raises:
        UnknownNameError: no such model, target or environment.
        DataError: the model takes no actions, or does not fit the environment.
    """
    resolver = Resolver.of(registry)
    resolver.registry.get("target", target)
    bundle = open_model(model, registry=resolver, progress=progress)
    manifest = bundle.manifest
    task = need_task(manifest, resolver.registry)
    if not task.spec.facts.get("acts"):
        raise DataError(
            f"{manifest.name} is for {task.spec.name} and takes no actions", "train one: pocketzoo fit-agent"
        )
    name = environment or str(manifest.provenance.get("environment", ""))
    if not name:
        raise DataError(f"{manifest.name} does not name its environment", "name an environment")
    if ":" in name and not environment:  # Gymnasium imports what is before it, which no file may ask for
        raise DataError(f"{manifest.name} is of {name!r}, which imports a module", f"if you trust it: play ... {name}")
    place, inputs = Environment(name), processor_of(bundle, resolver.registry).inputs
    shape = inputs[0].sample_shape
    if shape != (place.size,) or len(inputs) > 1 or manifest.model.outputs != place.actions:
        raise DataError(
            f"{manifest.name} reads {shape} and chooses of {manifest.model.outputs}; {name} has states of {place.size} "
            f"values and {place.actions} actions",
            "name the environment it was trained in",
        )
    if episodes < 1 or seed < 0:
        raise DataError(
            f"{episodes} episodes from seed {seed} cannot be played", "give 1 or more, and a seed of 0 or more"
        )
    graph, first = bundle.graph(target), episode_seed(seed, "play")
    with OnnxRunner(graph) as runner:

        def policy(states: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
            read = {inputs[0].name: states}
            return np.asarray(task.answers(runner.infer(read), read).classes)

        returns = play_episodes(name, policy, range(first, first + episodes))
    scores = task.scores()
    scores.update(None, np.asarray(returns))
    return Played(name, graph.name, tuple(map(float, returns)), task.headline(scores.result()))
