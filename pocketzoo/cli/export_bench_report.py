"""Commands that deploy and measure: export, bench, predict, report, demo."""

from __future__ import annotations

from pathlib import Path

import click

from pocketzoo.cli.echo import echo
from pocketzoo.cli.graph_options import graph_options
from pocketzoo.cli.options import (
    THREADS,
    Whole,
    data_option,
    force_option,
    json_option,
    model_argument,
    models_argument,
    names,
    out_option,
    resolver,
    seed_option,
    signed_option,
    skip_bad_option,
)
from pocketzoo.cli.render import (
    Bars,
    print_answer,
    print_columns,
    print_generation,
    print_json,
    print_measurements,
    print_timings,
)


class Lengths(click.ParamType[tuple[str, tuple[int, int, int]]]):
    """An axis and its minimum, optimal and maximum length, batch=1:8:32, or one fixed length, batch=8."""

    name = "lengths"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, int, int]]:
        from pocketzoo.zoo.catalog.engine_options import read_sizes

        name, _, text = str(value).partition("=")
        try:
            return name, read_sizes(text)
        except ValueError:
            self.fail(f"{value!r} is not AXIS=MIN:OPT:MAX; write batch=1:8:32, or batch=8", param, ctx)


@click.command()
@model_argument
@graph_options("model")
@click.option(
    "--to",
    default="onnx",
    show_default=True,
    shell_complete=names("exporter", "backend", but=lambda spec: not getattr(spec, "builds", True)),
    help="Format: onnx, tensorrt, triton, ...",
)
@click.option("--target", shell_complete=names("target"), help="Target of the graph [default: that of --to].")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "fp8", "int8", "int8-fp16", "int8-bf16"]),
    default="fp32",
    help="Precision of float layers; fp8 replaces int8; int8 calibrates on --data.",
)
@click.option(
    "--calibration-cache",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Scales for int8, of TensorRT's calibrator.",
)
@data_option(required=False)
@click.option("--output", "outputs", multiple=True, metavar="NAME",
              help="Hold this output to what the precision has to reach; repeatable [default: all].")  # fmt: skip
@click.option(
    "--shape", "shapes", type=Lengths(), multiple=True, metavar="AXIS=MIN:OPT:MAX", help="Lengths of a dynamic axis."
)
@click.option("--version-compatible", is_flag=True, help="Engine that later TensorRT versions load.")
@click.option("--hardware-compatible", is_flag=True, help="Engine that other GPUs load.")
@click.option("--strip", is_flag=True, help="Engine without weights.")
@click.option("--dla", type=Whole(0), metavar="CORE", help="Run on this DLA core; the GPU runs the rest.")
@click.option("--workspace", type=Whole(1), metavar="MIB", help="Maximum workspace memory of a layer.")
@out_option(required=False, text="Output file [default: in the bundle].")
@signed_option
@json_option
def export(
    model: str,
    to: str,
    target: str | None,
    precision: str,
    calibration_cache: Path | None,
    data: str | None,
    outputs: tuple[str, ...],
    shapes: tuple[tuple[str, tuple[int, int, int]], ...],
    version_compatible: bool,
    hardware_compatible: bool,
    strip: bool,
    dla: int | None,
    workspace: int | None,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Export MODEL to an ONNX graph or an NVIDIA engine."""
    from pocketzoo.deploy.export import export
    from pocketzoo.zoo.catalog.engine_options import EngineOptions
    from pocketzoo.zoo.graphs.files.weight_files import weight_files

    asked = EngineOptions(
        shapes=dict(shapes),
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        stripped=strip,
        dla=dla,
        workspace=workspace or 0,
    )
    engine = None if asked == EngineOptions() else asked
    path = export(
        model,
        to=to,
        target=target,
        out=out,
        precision=precision,
        engine=engine,
        data=data,
        calibration_cache=calibration_cache,
        outputs=outputs,
        force=force,
        registry=resolver(),
        progress=Bars(),
    )
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path, *weight_files(path)]
    size = sum(file.stat().st_size for file in files)
    if as_json:
        print_json({"file": str(path), "bytes": size})
        return
    if to == "trtexec":
        for script in sorted(path.rglob("build.sh")):  # one for each graph
            echo(script.read_text("utf8").splitlines()[-1])
    echo(f"wrote {path} ({f'{len(files)} files, ' * path.is_dir()}{size:,} bytes)")


@click.command()
@models_argument
@graph_options("models")
@data_option(required=False)
@click.option("--runtime", default="onnxruntime", show_default=True, help="Also torch, tensorrt-rtx, ...")
@click.option("--batch", default="1,32", show_default=True, help="Batch sizes to time.")
@click.option("--length", help="Sequence lengths to time, such as 32,128 [default: from the data].")
@click.option("--threads", type=THREADS, default=1, show_default=True, help="Threads of the runtime; 0: all cores.")
@click.option(
    "--seconds", type=click.FloatRange(0), default=0.5, show_default=True, help="Minimum time to run each model."
)
@click.option("--output", "outputs", multiple=True, metavar="NAME",
              help="SQNR is the worst of these outputs; repeatable [default: all].")  # fmt: skip
@click.option("--memory/--no-memory", default=True, help="Measure peak memory, in a process per model.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Plot to an .svg or .html file.")
@click.option("--save", is_flag=True, help="Store the results in the bundles, for report.")
@seed_option
@skip_bad_option
@signed_option
@json_option
def bench(
    models: tuple[str, ...],
    data: str | None,
    runtime: str,
    batch: str,
    length: str | None,
    threads: int,
    seconds: float,
    outputs: tuple[str, ...],
    memory: bool,
    plot: Path | None,
    save: bool,
    seed: int,
    skip_bad: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Measure models side by side; the first is the baseline.

    Separate several runtimes, batch sizes or lengths by commas: --batch 1,8,32.
    """
    from pocketzoo.reports.bench_plot import save_plot
    from pocketzoo.reports.html_page import check_drawing
    from pocketzoo.workflows.bench import bench

    if plot:
        check_drawing(plot)
    found_by = resolver()
    rows = bench(
        models,
        data=data,
        runtimes=[name.strip() for name in runtime.split(",")],
        batch_sizes=_numbers(batch, "--batch"),
        lengths=_numbers(length, "--length") if length else (),
        seconds=seconds,
        threads=threads,
        outputs=outputs,
        memory=memory,
        save=save,
        seed=seed,
        skip_bad=skip_bad,
        force=force,
        registry=found_by,
        progress=Bars(),
    )
    if as_json:
        print_json(rows)
    else:
        print_measurements(rows)
        print_timings(rows)
        print_generation(rows)
    if plot:
        echo(f"wrote {save_plot(rows, plot)}", err=as_json)


def _numbers(text: str, option: str) -> list[int]:
    try:
        numbers = [int(each) for each in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(f"{text!r} is not a list of positive integers such as 1,8,32", param_hint=option)
    return numbers


@click.command()
@model_argument
@graph_options("model")
@click.argument("files", metavar="[FILE...]", nargs=-1)
@click.option("--row", "rows", multiple=True, metavar="ROW",
              help='A row of a table: "height=1.8,mass=70", "1.8,70", or JSON; repeatable.')  # fmt: skip
@click.option(
    "--top",
    type=Whole(1),
    default=5,
    show_default=True,
    help="Classes to show, at most.",
)
@click.option("--target", shell_complete=names("target"), help="Use the graph for this target.")
@click.option("--provider", help="cpu, cuda, engine, or a runtime's name [default: the fastest here].")
@json_option
def predict(
    model: str,
    files: tuple[str, ...],
    rows: tuple[str, ...],
    top: int,
    target: str | None,
    provider: str | None,
    as_json: bool,
) -> None:
    """Show what MODEL answers, by its task: classes, labels, numbers.

    FILE is an image, a text, or whatever else the model reads; a table (.csv, .tsv, .jsonl, .parquet) or an .npz, of
    which each row is a sample; or .json.
    """
    if not files and not rows:
        raise click.UsageError("give a FILE to read, or a --row")
    from pocketzoo.workflows.predict import predict

    registry = resolver() if model.startswith("hf:") else None  # a bundle needs none, and starts sooner without
    predictions = predict(
        model, files, rows=rows, top=top, target=target, provider=provider, registry=registry, progress=Bars()
    )
    if as_json:
        print_json([{"file": p.file, **({"place": p.place} if p.place else {}), **p.answer} for p in predictions])
        return
    for prediction in predictions:
        echo(prediction.file + (f", {prediction.place}" if prediction.place else ""))
        print_answer(prediction)


@click.command()
@models_argument
@graph_options("models")
@data_option(required=False)
@out_option(required=True, text="HTML file to write.")
@seed_option
@skip_bad_option
def report(models: tuple[str, ...], data: str | None, out: Path, seed: int, skip_bad: bool) -> None:
    """Write an HTML report on one or more bundles.

    With --data it includes the task's metrics and the answers furthest from right; of classes a confusion matrix.
    """
    from pocketzoo.reports.report import report
    from pocketzoo.workflows.bench import bench
    from pocketzoo.zoo.models.open_model import open_model
    from pocketzoo.zoo.models.resolver import is_graph_only

    found_by, bars = resolver(), Bars()
    for opened in (open_model(model, registry=found_by, progress=bars) for model in models):
        if is_graph_only(opened) and not opened.manifest.measurements:  # a file that was no bundle to measure before
            bench([opened.path], data=data, save=True, seed=seed, skip_bad=skip_bad, registry=found_by, progress=bars)
    echo(f"wrote {report(models, out, data=data, seed=seed, skip_bad=skip_bad, registry=found_by, progress=bars)}")


@click.command()
@out_option(required=False, text="Output folder [default: pocketzoo-demo].")
@force_option
def demo(out: Path | None, force: bool) -> None:
    """Run the whole workflow on real data, in a minute.

    Fits a head to handwritten digits, prunes, factorizes, quantizes, exports, builds an engine and measures. Running
    it again replaces its output.
    """
    from pocketzoo.workflows.demo import demo

    result = demo(out or Path("pocketzoo-demo"), force=force, registry=resolver(), progress=Bars())
    print_measurements(result.rows)
    echo()
    print_columns([[name, str(path)] for name, path in result.places.items()])
