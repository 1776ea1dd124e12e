"""What the fuzzer gives inputs to: for each reader, valid inputs, and a function that reads one of any bytes."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaign import ROOT
from campaign_command import command

FROZEN = ROOT / "tests" / "frozen" / "format2"
Made = tuple[list[bytes], Callable[[bytes], object]]
CONFIGS: list[dict[str, Any]] = [
    {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 64, "hidden_size": 8,
     "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 32,
     "id2label": {"0": "no", "1": "yes"}, "pad_token_id": 0},
    {"model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_size": 8, "num_hidden_layers": 1,
     "num_attention_heads": 2, "intermediate_size": 16, "image_size": 16, "patch_size": 8, "num_channels": 3,
     "id2label": {"0": "no", "1": "yes"}},
]  # fmt: skip
TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": {"type": "Lowercase"},
    "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "[PAD]": 1, "a": 2, "b": 3}, "unk_token": "[UNK]"},
}  # fmt: skip
IMAGE_SETTINGS = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}


def manifest(folder: Path) -> Made:
    """A bundle whose manifest is the input, opened as far as its processor and task."""
    from pocketzoo.zoo.bundles.bundle import MANIFEST, read_bundle
    from pocketzoo.zoo.catalog.registry import default_registry
    from pocketzoo.zoo.data.processors.open_processor import processor_of
    from pocketzoo.zoo.tasks.open_task import open_task

    bundles = [FROZEN / name / "bundle" for name in ("regression", "agent", "foreign")]
    place = folder / "bundle"
    place.mkdir(exist_ok=True)
    for bundle in bundles:
        for file in bundle.iterdir():
            if not (place / file.name).exists():
                shutil.copyfile(file, place / file.name)

    def read(data: bytes) -> object:
        (place / MANIFEST).write_bytes(data)
        opened = read_bundle(place)
        processor_of(opened)
        return open_task(opened.manifest, default_registry())

    names = {file.name for file in bundles[0].iterdir()}
    for name in names:
        shutil.copyfile(bundles[0] / name, place / name)
    return [(bundles[0] / MANIFEST).read_bytes()], read


def lock(folder: Path) -> Made:
    """zoo.lock."""
    from pocketzoo.zoo.hub.lock_file import Locked, LockedFile, read_lock, write_lock

    path = folder / "zoo.lock"
    file = LockedFile(path="model.safetensors", size=10, sha256="a" * 64)
    write_lock(path, [Locked(ref=f"hf://org/m{i}", commit="b" * 40, file=(file, file)) for i in range(2)])
    valid = path.read_bytes()

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return read_lock(path)

    return [valid], read


def recipe(folder: Path) -> Made:
    """Recipes that ship, and their steps."""
    from pocketzoo.compress.pipeline.recipe import read_recipe
    from pocketzoo.core.errors import PocketzooError
    from pocketzoo.workflows.run_recipe import read_run_recipe
    from pocketzoo.zoo.catalog.registry import default_registry

    path = folder / "recipe.toml"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        try:
            return read_run_recipe(path, backbone="tinynet")
        except PocketzooError:
            return read_recipe(path, default_registry())

    step = b'[[step]]\nkind = "prune"\nratio = 0.3\nexclude = ["a", "b"]\n[[step]]\nkind = "int8"\n'
    return [step, *(file.read_bytes() for file in sorted((ROOT / "recipes").glob("*.toml")))], read


def _table(suffix: str, *valid: bytes, targets: tuple[str, ...] = ("classes", "numbers", "flags", "tags")) -> Any:
    def make(folder: Path) -> Made:
        from pocketzoo.core.errors import PocketzooError
        from pocketzoo.zoo.data.load_data import load_data

        path = folder / f"data{suffix}"

        def read(data: bytes) -> object:
            path.write_bytes(data)
            problem = None
            for kind in targets:  # the same file as each kind of target
                try:
                    load_data(path, targets=kind).digest()  # type: ignore[arg-type]
                except PocketzooError as error:
                    problem = error
            return problem

        return list(valid), read

    return make


def samples(folder: Path) -> Made:
    """JSON that predict is given, and a row on the command line."""
    from pocketzoo.core.errors import PocketzooError
    from pocketzoo.zoo.bundles.bundle import read_bundle
    from pocketzoo.zoo.data.processors.open_processor import processor_of
    from pocketzoo.zoo.data.sample_files import parsed_row, samples_of

    processor = processor_of(read_bundle(FROZEN / "regression" / "bundle"))
    path = folder / "rows.json"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        with contextlib.suppress(PocketzooError):
            processor([sample.sample for sample in samples_of(path, processor)])
        return processor([parsed_row(data.decode("utf8", "surrogateescape"), processor)])

    return [b"[1.5, 2.0, 3.0]"], read


def safetensors(folder: Path) -> Made:
    """Weights."""
    from pocketzoo.zoo.hub.weights import read_safetensors

    path = folder / "model.safetensors"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return read_safetensors(path)

    return [(FROZEN / name / "bundle" / "model.safetensors").read_bytes() for name in ("agent", "regression")], read


def graph(folder: Path) -> Made:
    """ONNX files: checked, then opened by onnxruntime, then run on zeros."""
    import numpy as np

    from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
    from pocketzoo.zoo.graphs.safety import check_graph

    path = folder / "model.onnx"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        check_graph(path)
        with OnnxRunner(path, threads=1) as runner:
            shapes = {tensor.name: tensor for tensor in runner.signature.inputs}
            if any(isinstance(n, int) and n > 4096 for tensor in shapes.values() for n in tensor.shape):
                return None
            feeds = {}
            for name, tensor in shapes.items():
                shape = [n if isinstance(n, int) else 1 for n in tensor.shape]
                if np.prod(shape, dtype=float) > 1e6 or tensor.dtype not in ("float32", "int64", "float64", "int32"):
                    return None
                feeds[name] = np.zeros(shape, tensor.dtype)
            return runner.infer(feeds)

    return [(FROZEN / name / "bundle" / "model.onnx").read_bytes() for name in ("agent", "foreign")], read


def tokenizer(folder: Path) -> Made:
    """tokenizer.json, and texts through it."""
    from pocketzoo.zoo.catalog.specs import TextSpec
    from pocketzoo.zoo.data.processors.text_encoder import TextEncoder

    path = folder / "tokenizer.json"
    spec = TextSpec(vocabulary=60_000, pad=1, max_length=16)

    def read(data: bytes) -> object:
        path.write_bytes(data)
        encoder = TextEncoder(spec, {spec.tokenizer: path})
        return encoder.masked(["a b", "", "\u00e9 a"]), encoder.spans(["a b"]), encoder.cut(["a b"])

    whole = (FROZEN / "gpt2" / "bundle" / "backbone.tokenizer.json").read_bytes()
    return [json.dumps(TOKENIZER).encode(), whole], read


def config(folder: Path) -> Made:
    """config.json and the processor's settings of a repository."""
    from pocketzoo.core.reading.documents import read_json
    from pocketzoo.zoo.catalog.registry import default_registry
    from pocketzoo.zoo.catalog.specs import Repository
    from pocketzoo.zoo.models.resolver import find_loader

    paths = {name: folder / name for name in ("config.json", "preprocessor_config.json", "tokenizer.json")}
    paths["tokenizer.json"].write_text(json.dumps(TOKENIZER))
    sizes = {**dict.fromkeys(paths, 100), "model.safetensors": 1000}
    digests = dict.fromkeys(sizes, "a" * 64)

    def read(data: bytes) -> object:
        paths["config.json"].write_bytes(data)
        try:
            both = read_json(paths["config.json"])
        except ValueError:
            return None  # as whoever reads it says
        if not isinstance(both, dict) or not isinstance(both.get("config"), dict):
            return None
        paths["preprocessor_config.json"].write_text(json.dumps(both.get("image")))
        files = {**paths, "model.safetensors": folder / "model.safetensors"}
        facts: dict[str, Any] = {"sizes": sizes, "config": both["config"], "files": files, "digests": digests}
        repository = Repository(repo_id="org/m", commit="b" * 40, library="transformers", **facts)
        loader = find_loader(repository, default_registry())
        return loader.backbone(repository), loader.head(repository)

    return [json.dumps({"config": each, "image": IMAGE_SETTINGS}).encode() for each in CONFIGS], read


def plan(folder: Path) -> Made:
    """Plans of steps, as bundles saved them."""
    from pocketzoo.core.reading.documents import parse_json
    from pocketzoo.zoo.bundles.bundle import read_bundle
    from pocketzoo.zoo.bundles.saved_plans import find_compressor
    from pocketzoo.zoo.catalog.registry import default_registry

    steps = [s for name in ("compressed", "gpt2") for s in read_bundle(FROZEN / name / "bundle").manifest.steps]
    known = {step.compressor: find_compressor(step, default_registry()) for step in steps}

    def read(data: bytes) -> object:
        try:
            whole = parse_json(data)
        except ValueError:
            return None
        if not isinstance(whole, dict) or not isinstance(whole.get("plan"), dict):
            return None
        name = whole.get("by")
        compressor = known[name if isinstance(name, str) and name in known else next(iter(known))]
        return compressor.read_plan(whole["plan"], None, compressor.plan_version)

    return [json.dumps({"by": step.compressor, "plan": dict(step.plan)}).encode() for step in steps], read


def listing(folder: Path) -> Made:
    """What a Hub answers."""
    from pocketzoo.zoo.hub import repositories

    valid = {"id": "org/m", "sha": "b" * 40, "library_name": "timm", "cardData": {"license": "mit"}, "downloads": 3,
             "safetensors": {"total": 5}, "config": {},
             "siblings": [{"rfilename": "config.json", "size": 5, "blobId": "c" * 40},
                          {"rfilename": "m.safetensors", "blobId": "c" * 40,
                           "lfs": {"size": 5, "sha256": "d" * 64}}]}  # fmt: skip

    def read(data: bytes) -> object:
        with repositories._reading("models"):
            repositories._read_listing("org/m", "main", data)
        with repositories._reading("models"):
            return repositories._read_found(repositories.parse_json(data))

    return [json.dumps(valid).encode()], read


def record(folder: Path) -> Made:
    """A record of the store, and its index of shards."""
    from pocketzoo.zoo.hub.shard_index import read_index
    from pocketzoo.zoo.hub.store_layout import read_record

    path = folder / "record.json"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        read_record(path)
        return read_index(path, ["model-1.safetensors"])

    return [
        json.dumps({"path": "a", "sha256": "a" * 64, "size": 3, "weight_map": {"w": "model-1.safetensors"}}).encode()
    ], read


def images(folder: Path) -> Made:
    """Image files."""
    import numpy as np
    from PIL import Image

    from pocketzoo.zoo.data.processors.image_preprocessing import decode_image

    rng, valid = np.random.default_rng(0), []
    for form, mode in (("PNG", "RGB"), ("PNG", "P"), ("JPEG", "L"), ("WEBP", "RGB"), ("BMP", "RGB"), ("GIF", "P")):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).convert(mode).save(stream, form)
        try:
            decode_image(io.BytesIO(stream.getvalue()), "it", 3)
        except Exception:  # a format that is not read
            continue
        valid.append(stream.getvalue())

    def read(data: bytes) -> object:
        return decode_image(io.BytesIO(data), "it", 3)

    return valid, read


def npz(folder: Path) -> Made:
    """Arrays."""
    import numpy as np

    x, y = np.arange(60, dtype=np.float32).reshape(20, 3), np.arange(20) % 2
    forms = []
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save(stream, x=x, y=y, labels=np.array(["a", "b"]))
        forms.append(stream.getvalue())
    made: Made = _table(".npz", *forms, targets=("classes", "numbers", "flags", "tags", "arrays"))(folder)
    return made


def parquet(folder: Path) -> Made:
    """Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = {"text": [f"t {i}" for i in range(10)], "label": ["a", "b"] * 5}
    numbers = {"u": [i * 0.5 for i in range(10)], "v": list(range(10)), "label": [0, 1] * 5}
    forms = []
    for columns in (texts, numbers):
        stream = io.BytesIO()
        pq.write_table(pa.table(columns), stream)
        forms.append(stream.getvalue())
    made: Made = _table(".parquet", *forms)(folder)
    return made


LINES = b"".join(b'{"text": "t%d", "label": "%s"}\n' % (i, b"ab"[i % 2 : i % 2 + 1]) for i in range(10))
NUMBERS = b"".join(b'{"u": %d.5, "v": %d, "label": %d}\n' % (i, i * 2, i % 2) for i in range(10))
CSV = b"text,label\n" + b"".join(b'"text, %d",%s\n' % (i, b"ab"[i % 2 : i % 2 + 1]) for i in range(10))
CSV_NUMBERS = b"u,v,label\n" + b"".join(b"%d.5,%d,%d\n" % (i, i * 2, i % 2) for i in range(10))

ODD = "text,label\n" + "".join(f'"\u00e9\u3042 {i}",{"ab"[i % 2]}\n' for i in range(10))
ENCODED = [ODD.encode(e) for e in ("utf-8-sig", "utf-16", "utf-16-le", "utf-32")] + [
    ODD.replace("\u3042", "").encode("latin-1"),
    ODD.replace(",", "\t").encode(),
    ODD.replace(",", ";").encode("utf-16"),
]

READERS: dict[str, Callable[[Path], Made]] = {
    "manifest": manifest,
    "lock": lock,
    "recipe": recipe,
    "jsonl": _table(".jsonl", LINES, NUMBERS),
    "csv": _table(".csv", CSV, CSV_NUMBERS),
    "csv encoded": _table(".csv", *ENCODED),
    "parquet": parquet,
    "command": command,
    "samples": samples,
    "npz": npz,
    "safetensors": safetensors,
    "onnx": graph,
    "tokenizer": tokenizer,
    "config": config,
    "plan": plan,
    "listing": listing,
    "record": record,
    "images": images,
}
