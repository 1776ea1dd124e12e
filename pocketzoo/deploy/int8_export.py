"""A float bundle in int8 for one target: calibrated on data, or by TensorRT's calibration cache."""

from __future__ import annotations

from math import inf
from pathlib import Path

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.pipeline.compress_model import compress_with
from pocketzoo.compress.pipeline.settings import CompressSettings
from pocketzoo.compress.quantization import int8
from pocketzoo.compress.quantization.calibration_cache import plan_by_scales, read_cache
from pocketzoo.core.errors import ExportError
from pocketzoo.core.progress import Progress
from pocketzoo.deploy.half_precision_export import told, told_each
from pocketzoo.deploy.reasons import by_reason, listed
from pocketzoo.zoo.bundles.bundle import Bundle, graph_name, read_bundle, updating
from pocketzoo.zoo.bundles.manifest import MODEL
from pocketzoo.zoo.catalog.compressor import Step
from pocketzoo.zoo.catalog.dataset import Dataset
from pocketzoo.zoo.catalog.specs import TargetSpec
from pocketzoo.zoo.graphs.files.graph_files import save_graph
from pocketzoo.zoo.graphs.files.load_graph import load_graph
from pocketzoo.zoo.models.resolver import Resolver


def quantized(
    bundle: Bundle,
    target: TargetSpec,
    folder: Path,
    *,
    data: str | Path | Dataset | None,
    cache: str | Path | None,
    outputs: tuple[str, ...] = (),
    resolver: Resolver,
    progress: Progress,
) -> Bundle:
    """A copy of a float bundle with its graph in int8 for ``target``, as the removed calibrators of TensorRT did it.

    Raises:
        ExportError: neither ``data`` nor a ``cache`` is given; or the cache has scales for no layer, or the model has
            several graphs.
        DataError: the cache is not one.
    """
    place = folder / "quantized"
    if cache is None:
        if data is None:
            raise ExportError(
                "int8 needs the ranges of activations, and neither data nor a calibration cache is given",
                "give samples: --data D; or --calibration-cache FILE of TensorRT's",
            )
        settings = CompressSettings(
            steps=(Step("int8", Int8Config()),), targets=(target.name,), keep_slower=True, outputs=outputs
        )
        made = compress_with(bundle.path, place, settings, data=data, registry=resolver, progress=progress)
        report = made.manifest.steps[-1].report
        each = {name: inf if ratio is None else ratio for name, ratio in report.outputs.items()}
        said = told_each(each) if each else told(inf if report.sqnr is None else report.sqnr)
        progress.say(f"int8: {said}, on {report.samples} samples")
        return made
    if list(bundle.graphs("")) != [MODEL]:
        raise ExportError(
            f"a calibration cache is of one graph, and {bundle.manifest.name} has several", "give samples: --data D"
        )
    scales = read_cache(Path(cache))
    model = load_graph(bundle.graph(""))
    plan = plan_by_scales(model, scales)
    if not plan.layers:
        raise ExportError(
            f"{cache} has a scale for the input of no layer of {bundle.manifest.name}",
            "give the cache that was calibrated on this graph; or samples: --data D",
        )
    progress.say(f"int8: {len(plan.layers)} layers by {len(plan.ranges)} of the {len(scales)} scales of {cache}")
    for reason, names in by_reason(plan.left).items():
        progress.say(f"  in float: {listed(names)}: {reason}")
    encoded = folder / "cached.onnx"
    save_graph(int8.apply(model, plan, target), encoded)
    with updating(bundle, place, progress=progress) as draft:
        draft.put([encoded], graph_name(target.name, "int8"), target=target.name, precision="int8")
    return read_bundle(place)
