"""Commands that make and evaluate models: fit, eval, compress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pocketzoo.cli.echo import echo, print_hint
from pocketzoo.cli.graph_options import graph_options
from pocketzoo.cli.options import (
    Fraction,
    Whole,
    data_option,
    force_option,
    image_size,
    json_option,
    model_argument,
    model_options,
    named,
    names,
    out_option,
    resolver,
    seed_option,
    skip_bad_option,
    training_options,
)
from pocketzoo.cli.render import Bars, print_columns, print_decisions, print_json, print_measurements, print_plans, some
from pocketzoo.core.errors import RejectedError


@click.command()
@model_options
@out_option(required=True, text="Bundle to write.")
@training_options("epochs", "batch_size", "learning_rate", "unfreeze")
@seed_option
@skip_bad_option
@click.option("--log", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Write TensorBoard events to this folder.")  # fmt: skip
@click.option("--shard", is_flag=True, help="Shard trainable parameters (FSDP).")
@force_option
@json_option
def fit(
    backbone: str,
    head: str,
    head_options: tuple[str, ...],
    backbone_options: tuple[str, ...],
    data: str | None,
    out: Path,
    cut: str,
    input_size: str | None,
    epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    unfreeze: str | None,
    seed: int,
    training: tuple[str, ...],
    skip_bad: bool,
    log: Path | None,
    shard: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Fit a new head to your data on a pretrained BACKBONE.

    The backbone is frozen unless --unfreeze selects blocks to fine-tune. A head without parameters (embedding) needs no
    data. An interrupted run resumes when the command is given again. Start it by torchrun to use several processes.
    """
    from pocketzoo.train.fit import fit

    bundle = fit(
        backbone,
        out,
        data=data,
        head=head,
        head_options=named(head_options, "--head-option"),
        backbone_options=named(backbone_options, "--backbone-option"),
        cut=cut,
        input_size=image_size(input_size),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        unfreeze=unfreeze,
        seed=seed,
        training=named(training, "--set"),
        skip_bad=skip_bad,
        log=log,
        shard=shard,
        force=force,
        registry=resolver(),
        progress=Bars(),
    )
    metrics = bundle.manifest.metrics
    if as_json:
        print_json({"bundle": str(out), **metrics})
    else:
        numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        intervals = metrics.get("intervals", {})
        print_columns(
            [[name.replace("_", " "), f"{value:.4g}", interval(intervals.get(name))] for name, value in numbers.items()]
        )
        echo(f"wrote {out}")


@click.command("eval")
@model_argument
@graph_options("model", data=True)
@data_option(required=True)
@click.option(
    "--target",
    default="cpu",
    show_default=True,
    shell_complete=names("target"),
    help="Use the graph for this target.",
)
@seed_option
@skip_bad_option
@json_option
def eval_(model: str, data: str, target: str, seed: int, skip_bad: bool, as_json: bool) -> None:
    """Evaluate MODEL on the test split of labeled data."""
    from pocketzoo.measure.evaluate import evaluate

    scores = evaluate(
        model, data=data, target=target, seed=seed, skip_bad=skip_bad, registry=resolver(), progress=Bars()
    )
    if as_json:
        print_json(scores)
        return
    print_columns(
        [
            *[
                [name, f"{value:.4f}{_unit(name, scores)}  {interval(scores['intervals'].get(name))}".rstrip()]
                for name, value in scores.items()
                if isinstance(value, float)
            ],
            ["samples", f"{scores['samples']} of the {scores['split']} split of {scores['data']}"],
            ["graph", scores["graph"]],
            *[
                [f"SQNR of {name}", "equal" if sqnr is None else f"{sqnr:.1f} dB"]
                for name, sqnr in scores.get("outputs", {}).items()
            ],
            *([["skipped", str(scores["skipped"])]] if scores["skipped"] else []),
            *[["", name] for name in some(scores.get("skipped_samples", []))],
            *[
                [f"  {label}", f"{score:.4f}{_mistaken(label, scores)}"]
                for label, score in {**scores.get("classes", {}), **scores.get("labels", {})}.items()
            ],
        ]
    )


def _unit(name: str, scores: dict[str, Any]) -> str:
    """Of the task's metric, where it has one."""
    return f" {scores['unit']}" if name == scores["metric"] and "unit" in scores else ""


def interval(ends: Sequence[float | None] | None) -> str:
    """An interval of 95% confidence in words; nothing where none is known."""
    low, high = ends or (None, None)
    return "" if low is None or high is None else f"({low:.4g} to {high:.4g})"


def _mistaken(label: str, scores: dict[str, Any]) -> str:
    """The class that samples of this one are most often misclassified as."""
    wrong = {name: count for name, count in scores.get("confusion", {}).get(label, {}).items() if name != label}
    if not wrong:
        return ""
    most = max(wrong, key=lambda name: wrong[name])
    return f"  most confused with {most}: {wrong[most]}"


@click.command()
@model_argument
@graph_options("model", writes=True, data=True)
@out_option(required=False, text="Bundle to write.")
@click.option("-r", "--recipe", type=click.Path(path_type=Path), metavar="FILE", help="Steps from a TOML recipe.")
@click.option("--prune", type=float, metavar="R", help="Remove this fraction of the channels, 0-1.")
@click.option("--low-rank", type=float, metavar="E", help="Factorize; keep this fraction of the energy, 0-1.")
@click.option("--int8", is_flag=True, help="Quantize weights and activations to int8.")
@data_option(required=True)
@click.option("--target", "targets", multiple=True, default=("cpu",), show_default=True, shell_complete=names("target"),
              help="Target to encode for; repeatable.")  # fmt: skip
@click.option("--samples", type=Whole(1), default=256, show_default=True, help="Maximum number of calibration samples.")
@click.option("--max-drop", type=Fraction(), metavar="P", help="Maximum loss of the metric by all steps, such as 1%.")
@click.option("--min-sqnr", type=float, metavar="DB", help="Keep layers in float until each output reaches it.")
@click.option("--output", "outputs", multiple=True, metavar="NAME",
              help="Hold this output to --min-sqnr and to the floor of 10 dB; repeatable [default: all].")  # fmt: skip
@click.option("--keep-slower", is_flag=True, help="Keep a step that makes the model larger or slower.")
@click.option("--accept", is_flag=True, help="Keep a step that makes answers worse or changes nothing.")
@click.option("--dry-run", is_flag=True, help="Show the plan; write nothing.")
@seed_option
@skip_bad_option
@force_option
@json_option
def compress(
    model: str,
    out: Path | None,
    recipe: Path | None,
    prune: float | None,
    low_rank: float | None,
    int8: bool,
    data: str,
    targets: tuple[str, ...],
    samples: int,
    max_drop: float | None,
    min_sqnr: float | None,
    outputs: tuple[str, ...],
    keep_slower: bool,
    accept: bool,
    dry_run: bool,
    seed: int,
    skip_bad: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Make MODEL smaller and faster, and measure it.

    Steps come from a recipe, from --prune, --low-rank and --int8 (in this order), or both. An interrupted run resumes
    when the same command is given again. Without data: --data none. Exit code 3: a step was rejected.
    """
    from pocketzoo.compress.pipeline import compress_model
    from pocketzoo.compress.pipeline.acceptance import way_out, worse
    from pocketzoo.compress.pipeline.settings import CompressSettings

    settings = CompressSettings(
        steps=tuple(_steps(prune, low_rank, int8)),
        recipe=recipe,
        targets=targets,
        samples=samples,
        max_drop=max_drop,
        min_sqnr=min_sqnr,
        keep_slower=keep_slower,
        accept=accept,
        outputs=outputs,
        seed=seed,
        skip_bad=skip_bad,
        force=force,
    )
    if dry_run:
        steps = compress_model.dry_run(model, settings, data=data, registry=resolver(), progress=Bars())
        if as_json:
            print_json(steps)
        else:
            print_plans(steps)
        return
    if out is None:
        raise click.UsageError("Missing option '-o' / '--out' (or give --dry-run).")
    bundle = compress_model.compress_with(model, out, settings, data=data, registry=resolver(), progress=Bars())
    if as_json:
        manifest = bundle.manifest
        print_json(
            {
                "bundle": str(out),
                "measurements": manifest.measurements,
                "steps": [{"compressor": step.compressor, "report": step.report} for step in manifest.steps],
                "rejected": manifest.rejected,
            }
        )
    else:
        print_measurements(bundle.manifest.measurements)
        print_decisions(bundle.manifest)
        left_out = ", ".join(dict.fromkeys(no.compressor for no in bundle.manifest.rejected))
        echo(f"wrote {out}" + f" without {left_out}" * bool(left_out))
    if rejected := worse(bundle.manifest):
        if not as_json:
            print_hint(way_out(rejected))
        click.get_current_context().exit(RejectedError.exit_code)


def _steps(prune: float | None, low_rank: float | None, int8: bool) -> list[Any]:
    from pocketzoo.compress.configs import Int8Config, LowRankConfig, PruneConfig
    from pocketzoo.zoo.catalog.compressor import Step

    steps: list[Step] = []
    if prune is not None:
        steps.append(Step("prune", PruneConfig(ratio=prune)))
    if low_rank is not None:
        steps.append(Step("low-rank", LowRankConfig(energy=low_rank)))
    if int8:
        steps.append(Step("int8", Int8Config()))
    return steps
