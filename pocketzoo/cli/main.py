"""The command group: order of the commands, and how errors look."""

from __future__ import annotations

import builtins
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TextIO

import click

from pocketzoo.cli.echo import echo
from pocketzoo.cli.endings import EXIT_CODES, endings, leave, prepare_process, show_error
from pocketzoo.core.caching import VARIABLE as NO_CACHE
from pocketzoo.core.telemetry import ONNXRUNTIME
from pocketzoo.core.version import __version__

# In the order of the work: the module, and what the list of commands says, which would else import all of them. A
# function whose name is taken in Python ends with an underscore.
WHERE = {
    "list": ("catalog", "List registered names, all or by glob."),
    "info": ("catalog", "Show details of a registered name or a model."),
    "plugins": ("catalog", "List plugins, and why one could not be loaded."),
    "new-plugin": ("catalog", "Create a plugin package, which works, with its tests."),
    "doctor": ("catalog", "Check this installation, its runtimes and GPUs."),
    "open": ("graph_options", "Open an ONNX file as a bundle, with what the file does not say."),
    "search": ("hub", "Search the Hub for models that can be loaded here."),
    "pull": ("hub", "Download models from the Hub and verify every byte."),
    "lock": ("hub", "Pin models in zoo.lock: commit and sha256 of every file."),
    "update": ("hub", "Move locked models to the latest commit of their branch."),
    "outdated": ("hub", "List locked models whose branch has moved."),
    "store": ("hub", "Manage downloaded files."),
    "data": ("data", "Inspect data before training."),
    "find-rate": ("find_rate", "Find a learning rate for fit with the same options."),
    "fit": ("fit_eval_compress", "Fit a new head to your data on a pretrained BACKBONE."),
    "eval": ("fit_eval_compress", "Evaluate MODEL on the test split of labeled data."),
    "compress": ("fit_eval_compress", "Make MODEL smaller and faster, and measure it."),
    "pair": ("pair", "Join two encoders of one space into one bundle."),
    "fit-agent": ("agents", "Train an agent in a Gymnasium ENVIRONMENT."),
    "play": ("agents", "Play episodes with the agent MODEL."),
    "generate": ("generate", "Generate text with MODEL from each prompt TEXT."),
    "targets": ("targets", "List targets, and what this machine can do for them."),
    "check": ("targets", "Check which nodes a target rejects or runs slowly."),
    "export": ("export_bench_report", "Export MODEL to an ONNX graph or an NVIDIA engine."),
    "pack": ("pack_sign_verify", "Copy what a device needs of MODEL: one graph, labels, tokenizer."),
    "bench": ("export_bench_report", "Measure models side by side; the first is the baseline."),
    "profile": ("profile", "Show where MODEL spends its time, layer by layer."),
    "predict": (
        "export_bench_report",
        "Show what MODEL answers, by its task: classes, labels, numbers.",
    ),
    "report": ("export_bench_report", "Write an HTML report on one or more bundles."),
    "sign": ("pack_sign_verify", "Sign BUNDLE with a private key."),
    "verify": ("pack_sign_verify", "Verify every file of BUNDLE, who signed it, and when."),
    "push": ("hub", "Upload BUNDLE to the Hub, with its model card."),
    "run": ("run", "Run a whole workflow from a RECIPE, by name or file."),
    "demo": ("export_bench_report", "Run the whole workflow on real data, in a minute."),
}


__all__ = ["Commands", "Modules", "cli", "leave", "main", "show_error"]  # two were here before endings.py


class Modules(Mapping[str, click.Command]):
    """Commands by name; the module of one is imported when it is asked for, so that each starts without the others."""

    def __getitem__(self, name: str) -> click.Command:
        namespace = vars(import_module(f"pocketzoo.cli.{WHERE[name][0]}"))
        word = name.replace("-", "_")
        command: click.Command = namespace[f"{word}_" if hasattr(builtins, word) else word]
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(WHERE)

    def __len__(self) -> int:
        return len(WHERE)


class Commands(click.Group):
    """Lists commands in the order of the work; prints errors a user can fix as two lines and exits with their code."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """On one line, so that the commands below fit on a screen."""
        words = [record[0] + ("" if p.is_eager else f" ({record[1].rstrip('.').lower()})")
                 for p in self.get_params(context) if (record := p.get_help_record(context))]  # fmt: skip
        formatter.write(f"\nOptions: {'; '.join(words)}\n")
        self.format_commands(context, formatter)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, says) for name, (_, says) in WHERE.items()])

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        codes = ", ".join(f"{code} {says}" for code, says in EXIT_CODES.items())
        formatter.write(f"\nExit codes: {codes}\n")

    def main(self, *args: Any, **kwargs: Any) -> Any:
        with endings():
            return super().main(*args, **kwargs)

    def invoke(self, context: click.Context) -> object:
        with warnings.catch_warnings(), endings():  # here as well: click has its own way with Ctrl-C
            warnings.showwarning = show_warning
            return super().invoke(context)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A renamed option as one line on stderr, any other warning as Python shows it."""
    from pocketzoo.core.renamed import RenamedWarning  # few commands warn

    if issubclass(category, RenamedWarning):
        echo(f"  {message}", mark="note:", color="yellow", err=True)
    else:
        echo(warnings.formatwarning(message, category, filename, lineno, line), err=True, nl=False)


@contextmanager
def _set(*variables: str) -> Iterator[None]:
    """Environment variables that are 1 while a command runs: who calls it from Python has them as they were."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(dict.fromkeys(variables, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@click.group(
    cls=Commands,
    commands=Modules(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="pocketzoo %(version)s")
@click.option("--offline", is_flag=True, help="Use stored files only.")
@click.option("--no-cache", is_flag=True, help="Compute anew.")
@click.pass_context
def cli(context: click.Context, offline: bool, no_cache: bool) -> None:
    """Take a pretrained model, fit it to your data, run it on an edge GPU. A MODEL is
    a bundle (of fit or compress), a registered name, or hf://org/name.
    """
    if offline:  # whatever they were; the Hub's client reads its own when it is imported, which is later
        context.with_resource(_set(ONNXRUNTIME, "HF_HUB_OFFLINE"))
    if no_cache:
        context.with_resource(_set(NO_CACHE))


def main() -> None:
    """The entry point of the "pocketzoo" script."""
    prepare_process()
    cli(prog_name="pocketzoo")
