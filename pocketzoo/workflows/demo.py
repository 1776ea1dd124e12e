"""The ``demo`` function: the whole workflow on real data, handwritten digits on tinynet."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from pocketzoo.compress.configs import Int8Config, LowRankConfig, PruneConfig
from pocketzoo.compress.pipeline.compress_model import compress_with
from pocketzoo.compress.pipeline.settings import CompressSettings
from pocketzoo.core.errors import BundleError, MissingDependencyError
from pocketzoo.core.files import replacing_file
from pocketzoo.core.names import check_folder_name
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.core.version import __version__
from pocketzoo.deploy.export import export
from pocketzoo.reports.report import report
from pocketzoo.train.fit import fit
from pocketzoo.workflows.bench import bench
from pocketzoo.zoo.bundles.manifest import MANIFEST
from pocketzoo.zoo.bundles.measurement import Measurement
from pocketzoo.zoo.bundles.work_folder import check_place
from pocketzoo.zoo.catalog.compressor import Step
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.models.resolver import Resolver

TARGETS = ("cpu", "tensorrt-rtx")
STEPS = ("fitted", "pruned", "factorized", "int8")  # a bundle each
MARK = "demo.json"  # says that a folder's bundles are the demo's own, to be replaced


@dataclass(frozen=True)
class Demo:
    """What the demo made."""

    rows: list[Measurement]
    places: dict[str, Path] = field(default_factory=dict)


@survives_exit
def demo(
    out: str | Path, *, force: bool = False, registry: Registry | Resolver | None = None, progress: Progress = SILENT
) -> Demo:
    """Fit a head to the digits, prune, factorize, quantize, export, build an engine, measure; all below ``out``.

    Running it again replaces its own bundles, and those of others only with ``force``.

    Raises:
        BundleError: ``out`` is a bundle, or where the demo was not run before there is one of a name it uses.
        MissingDependencyError: the extra "demo" is not installed.
    """
    out = Path(out)
    if (out / MANIFEST).is_file():
        raise BundleError(f"{out} is a bundle, and the demo makes a folder of them", "choose another place with -o")
    check_folder_name(out, "what the demo makes")
    force = force or (out / MARK).is_file()
    for name in STEPS:
        check_place(out / name, force=force)
    resolver = Resolver.of(registry)
    data = load_data("digits", registry=resolver.registry)
    progress.say("1/5 fit: head linear on tinynet, 1,797 handwritten digits")
    with replacing_file(out / MARK) as temporary:
        temporary.write_text(json.dumps({"pocketzoo": __version__}) + "\n")
    fitted = fit("tinynet", out / "fitted", data=data, force=force, registry=resolver, progress=progress)
    progress.say(f"    test accuracy {fitted.manifest.metrics['test_accuracy']:.4f}")
    # It shows what each step does, also where one is too small or this machine too busy for it to pay.
    shown = CompressSettings(targets=TARGETS, keep_slower=True, accept=True, force=force)

    def compress(source: str, name: str, step: Step) -> None:
        settings = replace(shown, steps=(step,))
        compress_with(out / source, out / name, settings, data=data, registry=resolver, progress=progress)

    progress.say("2/5 prune channels")
    compress("fitted", "pruned", Step("prune", PruneConfig(ratio=0.3)))
    progress.say("3/5 factorize layers")
    compress("pruned", "factorized", Step("low-rank", LowRankConfig(energy=0.999)))
    progress.say("4/5 quantize to int8")
    compress("factorized", "int8", Step("int8", Int8Config()))
    places = {"bundles": out}
    progress.say("5/5 export, measure, report")
    places["graph for cpu"] = export(out / "int8", to="onnx", target="cpu", registry=resolver)
    try:
        places["NVIDIA engine"] = export(out / "int8", to="tensorrt-rtx", registry=resolver, progress=progress)
    except MissingDependencyError as error:  # TensorRT-RTX has no build for some platforms; the rest still runs
        progress.say(f"no engine: {error.message} ({error.hint})")
    steps = [out / name for name in STEPS]
    rows = bench(steps, data=data, save=True, force=force, registry=resolver, progress=progress)
    places["report"] = report(steps, out / "report.html", registry=resolver)
    return Demo(rows, places)
