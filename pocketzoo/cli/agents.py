"""Commands for agents: fit-agent, play."""

from __future__ import annotations

from pathlib import Path

import click

from pocketzoo.cli.echo import echo
from pocketzoo.cli.options import (
    Whole,
    force_option,
    json_option,
    model_argument,
    named,
    names,
    out_option,
    resolver,
    seed_option,
)
from pocketzoo.cli.render import Bars, print_columns, print_json
from pocketzoo.train.agents.settings import SAYS


@click.command("fit-agent")
@click.argument("environment")
@out_option(required=True, text="Bundle to write.")
@click.option("--backbone-option", "backbone_options", multiple=True, metavar="NAME=VALUE",
              help="Option of the mlp backbone, such as hidden=64,64.")  # fmt: skip
@click.option("--head-option", "head_options", multiple=True, metavar="NAME=VALUE",
              help="Option of the q-values head, such as dueling=yes.")  # fmt: skip
@click.option("--set", "training", multiple=True, metavar="NAME=VALUE",
              help=f"Training setting, repeatable: {', '.join(SAYS)}.")  # fmt: skip
@click.option("--states", type=click.Path(path_type=Path), metavar="FILE",
              help="Save visited states to this .npz, as calibration data.")  # fmt: skip
@seed_option
@force_option
@json_option
def fit_agent(
    environment: str,
    out: Path,
    backbone_options: tuple[str, ...],
    head_options: tuple[str, ...],
    training: tuple[str, ...],
    states: Path | None,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Train an agent in a Gymnasium ENVIRONMENT.

    Trains a Q-network by double DQN, in CartPole-v1 for example, until the mean return over 100 evaluation episodes
    reaches the environment's goal. An interrupted run resumes when the same command is given again.
    """
    from pocketzoo.train.agents.double_dqn import fit_agent

    bundle = fit_agent(
        environment,
        out,
        backbone_options=named(backbone_options, "--backbone-option"),
        head_options=named(head_options, "--head-option"),
        training=named(training, "--set"),
        states=states,
        seed=seed,
        force=force,
        registry=resolver(),
        progress=Bars(),
    )
    metrics = bundle.manifest.metrics
    if as_json:
        print_json({"bundle": str(out), **metrics})
    else:
        print_columns([[name.replace("_", " "), f"{value:.6g}"] for name, value in metrics.items()])
        echo(f"wrote {out}")


@click.command()
@model_argument
@click.argument("environment", default="")
@click.option("--episodes", type=Whole(1), default=100, show_default=True, help="Number of episodes.")
@click.option("--target", default="cpu", show_default=True, shell_complete=names("target"),
              help="Use the graph for this target.")  # fmt: skip
@seed_option
@json_option
def play(model: str, environment: str, episodes: int, target: str, seed: int, as_json: bool) -> None:
    """Play episodes with the agent MODEL.

    ENVIRONMENT defaults to the one it was trained in.
    """
    from pocketzoo.workflows.play import play

    played = play(model, environment, episodes=episodes, target=target, seed=seed, registry=resolver(), progress=Bars())
    if as_json:
        facts = {"environment": played.environment, "graph": played.graph, "mean": played.mean}
        print_json({**facts, "returns": played.returns})
    else:
        worst, best = min(played.returns), max(played.returns)
        rows = [["mean return", f"{played.mean:.1f}"], ["worst, best", f"{worst:g}, {best:g}"]]
        print_columns([*rows, ["episodes", f"{episodes} of {played.environment}"], ["graph", played.graph]])
