"""Cases for ``campaign_hostile``: repositories, graphs, bundles and archives that mean harm, made by seed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign import ROOT
from campaign_fuzz import as_json, changed, mutated
from campaign_graphs import EVIL_TEXT, write_graph
from campaign_process import fork

FROZEN = ROOT / "tests" / "frozen" / "format2"
CODE = "import pathlib\npathlib.Path({canary!r}).touch()\nraise SystemExit\n"
SIZES: list[Any] = [
    -1, 0, 1, 3, 2**16, 10**6, 10**7, 10**8, 10**9, 2**31, 2**62, 2**63, 10**30, 0.5, "32", [32], {"": 32}, None, True,
]  # fmt: skip
REPOSITORY_WORDS = (
    ("pull", "hf://org/evil"), ("predict", "hf://org/evil", "the model is small"), ("info", "hf://org/evil"),
    ("export", "hf://org/evil", "-o", "out.onnx"), ("bench", "hf://org/evil", "--seconds", "0", "--no-memory"),
    ("generate", "hf://org/evil", "the model", "--max-new-tokens", "3"), ("predict", "hf://org/evil", "image.png"),
    ("pull", "hf://org/evil#head"),
)  # fmt: skip
GRAPH_WORDS = (
    ("info", "g.onnx"), ("check", "g.onnx", "--target", "cpu"), ("check", "g.onnx", "--target", "jetson-orin"),
    ("predict", "g.onnx", "x.npz"), ("export", "g.onnx", "-o", "out.onnx"), ("profile", "g.onnx", "--seconds", "0"),
    ("bench", "g.onnx", "--seconds", "0", "--no-memory", "--batch", "1"),
    ("compress", "g.onnx", "--data", "x.npz", "--int8", "-o", "out", "--accept", "--keep-slower"),
)  # fmt: skip
BUNDLE_WORDS = (
    ("verify", "bundle"), ("predict", "bundle", "the model is small"), ("predict", "bundle", "image.png"),
    ("predict", "bundle", "x.npz"), ("predict", "bundle", "row.csv"), ("info", "bundle"), ("info", "bundle", "--json"),
    ("info", "bundle", "--provenance"), ("report", "bundle", "-o", "r.html"), ("export", "bundle", "-o", "out.onnx"),
    ("export", "bundle", "--to", "triton", "-o", "triton"), ("pack", "bundle", "-o", "packed"),
    ("bench", "bundle", "--seconds", "0", "--no-memory", "--batch", "1"), ("eval", "bundle", "--data", "x.npz"),
    ("compress", "bundle", "--data", "x.npz", "--prune", "0.1", "-o", "out", "--accept", "--keep-slower"),
    ("profile", "bundle", "--seconds", "0"), ("check", "bundle", "--target", "jetson-orin"),
    ("generate", "bundle", "the", "--max-new-tokens", "3"),
)  # fmt: skip
MORE_FILES = (
    "modeling_evil.py", "configuration_evil.py", "pytorch_model.bin", "adapter_config.json", "kernels/__init__.py",
    "setup.py", "conftest.py", "sitecustomize.py", "tokenization_evil.py", "model.safetensors.index.json",
    "pocketzoo.json", "handler.py", "custom_generate/generate.py", "processing_evil.py", "model.onnx",
    "added_tokens.json", "vocab.txt",
)  # fmt: skip
PATTERNS = ("(e+)+$", "(.|e)*x", "(.*e){20}", ".*.*.*.*.*.*.*.*.*.*z", "((e{1,900}){1,900}){1,900}")


@dataclass
class Case:
    """What one run is given: its kind, the words of the command, and the repositories that the Hub has."""

    kind: str
    says: str  # what of it is hostile
    words: tuple[str, ...]
    repositories: dict[str, Path] = field(default_factory=dict)


class Stock:
    """Repositories and bundles that are fine, made once, which cases are made of."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.canary = folder, folder / "canary"
        folder.mkdir(exist_ok=True)
        if (child := fork()) == 0:  # which runs torch, whose threads no fork of this process may have copied
            _write_repositories(folder)
        if os.waitpid(child, 0)[1]:
            raise RuntimeError("the repositories were not written")
        self.repositories = {path.parent.name: path.parent for path in sorted(folder.glob("*/config.json"))}
        self.bundles = {path.name: path / "bundle" for path in sorted(FROZEN.iterdir()) if (path / "bundle").is_dir()}

    def code(self) -> str:
        """Python that leaves a trace where it runs."""
        return CODE.format(canary=str(self.canary))

    def pickled(self) -> bytes:
        """A pickle that does."""
        return pickle.dumps(_Touches(self.canary), 2)

    def torch_file(self) -> bytes:
        """An archive as torch writes them, with that pickle."""
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w") as archive:
            archive.writestr("archive/data.pkl", self.pickled())
            archive.writestr("archive/version", "3")
        return raw.getvalue()


class _Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def _write_repositories(folder: Path) -> None:
    code = 1
    try:
        import hubmodels
        from transformers.utils import logging

        logging.disable_progress_bar()
        for family in (*hubmodels.TEXT_FAMILIES, *hubmodels.VISION_FAMILIES):
            hubmodels.write_model(folder / family, family)
        for family, task in (("bert", "sequence"), ("bert", "token"), ("llama", "language"), ("vit", "image")):
            hubmodels.write_headed(folder / f"{family}-{task}", family, task)
        hubmodels.write_sentence_transformer(folder / "sentences")
        code = 0
    finally:
        os._exit(code)


def make_case(chance: random.Random, folder: Path, stock: Stock) -> Case:
    """A case of a kind by chance, in a folder of its own."""
    makers = (transformers_case,) * 4 + (bundle_case,) * 4 + (graph_case,) * 3 + (timm_case, archive_case)
    return chance.choice(makers)(chance, folder, stock)


def leaf_changed(value: Any, chance: random.Random, choices: list[Any]) -> Any:
    """Plain data with one of its leaves replaced."""
    if isinstance(value, dict) and value:
        key = chance.choice(list(value))
        return {**value, key: leaf_changed(value[key], chance, choices)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        at = chance.randrange(len(value))
        return [*value[:at], leaf_changed(value[at], chance, choices), *value[at + 1 :]]
    return chance.choice(choices)


def _change_file(path: Path, chance: random.Random) -> str:
    with contextlib.suppress(ValueError, RecursionError):  # one that was made deep before stays so
        path.write_text(json.dumps(leaf_changed(json.loads(path.read_text()), chance, [*SIZES, *EVIL_TEXT])))
    return path.name


# -- repositories


def transformers_case(chance: random.Random, folder: Path, stock: Stock) -> Case:
    """A repository with settings that choose what is loaded, with sizes, tokenizers, weights or other files."""
    family = chance.choice(list(stock.repositories))
    repository = shutil.copytree(stock.repositories[family], folder / "repository")
    says = [family]
    ways: list[Callable[[random.Random, Path, Stock], str]] = [
        *[_setting] * 3, *[_size] * 2, _text, *[_tokenizer] * 2, *[_settings] * 2, _weights, _more,
    ]  # fmt: skip
    for _ in range(chance.choice((1, 1, 2, 3))):
        says.append(chance.choice(ways)(chance, repository, stock))
    return Case("transformers", "; ".join(says), chance.choice(REPOSITORY_WORDS), {"org/evil": repository})


def _config(repository: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((repository / "config.json").read_text())
    return config


def _setting(chance: random.Random, repository: Path, stock: Stock) -> str:
    from hostileconfigs import HOSTILE, NESTS

    name = chance.choice(list(HOSTILE))
    setting = {name: chance.choice(HOSTILE[name])}
    if chance.random() < 0.3:
        setting = {chance.choice(NESTS): {"model_type": "bert", **setting}}
    (repository / "config.json").write_text(json.dumps({**_config(repository), **setting}))
    return repr(setting)


def _size(chance: random.Random, repository: Path, stock: Stock) -> str:
    config = _config(repository)
    name = chance.choice([key for key, each in config.items() if isinstance(each, (int, list))])
    config[name] = chance.choice(SIZES)
    (repository / "config.json").write_text(json.dumps(config))
    return f"{name}={config[name]!r}"


def _text(chance: random.Random, repository: Path, stock: Stock) -> str:
    text = chance.choice(EVIL_TEXT)
    config = {**_config(repository), "id2label": {"0": text, "1": "x"}, "_name_or_path": text}
    if chance.random() < 0.3:
        config[text] = text
    (repository / "config.json").write_text(json.dumps(config))
    (repository / "README.md").write_text(f"---\nlicense: {json.dumps(text)}\nlibrary_name: transformers\n---\n{text}")
    return f"text {text[:20]!r}"


def _settings(chance: random.Random, repository: Path, stock: Stock) -> str:
    others = [p for p in sorted(repository.glob("**/*.json")) if p.name not in ("config.json", "tokenizer.json")]
    return _change_file(chance.choice(others), chance) if others else "no other settings"


def _tokenizer(chance: random.Random, repository: Path, stock: Stock) -> str:
    path = repository / "tokenizer.json"
    if not path.is_file():
        return _settings(chance, repository, stock)
    try:
        table = json.loads(path.read_text())
    except (ValueError, RecursionError):  # it was changed before
        return _settings(chance, repository, stock)
    way = chance.choice(("growth", "regex", "leaf", "leaf", "leaf", "many", "deep", "word"))
    if way == "growth":
        step = {"type": "Replace", "pattern": {"String": "e"}, "content": "ee" * chance.choice((1, 5, 1000))}
        table["normalizer"] = {"type": "Sequence", "normalizers": [step] * chance.choice((2, 30, 3000))}
    elif way == "regex":
        pattern = {"Regex": chance.choice(PATTERNS)}
        table["pre_tokenizer"] = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    elif way == "many":
        how = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        table["added_tokens"] = [{"id": i, "content": f"<{i}>", **how, "special": True} for i in range(20_000)]
    elif way == "word":
        table["model"]["max_input_chars_per_word"] = 10**9
    elif way == "leaf":
        table = leaf_changed(table, chance, [*SIZES, *EVIL_TEXT])
    nested = '{"type":"Sequence","normalizers":['
    path.write_text(f'{{"normalizer":{nested * 3000}{"]}" * 3000}}}' if way == "deep" else json.dumps(table))
    return f"tokenizer {way}"


def _weights(chance: random.Random, repository: Path, stock: Stock) -> str:
    return damage_weights(chance, repository / "model.safetensors", stock)


def damage_weights(chance: random.Random, path: Path, stock: Stock) -> str:
    """Put something else in place of a safetensors file."""
    data, way = path.read_bytes(), chance.choice(("pickle", "cut", "header", "zip", "empty"))
    if way == "cut":
        data = data[: chance.randrange(len(data))]
    elif way == "header":
        data = (2 ** chance.choice((20, 40, 62))).to_bytes(8, "little") + data[8:]
    else:
        data = {"pickle": stock.pickled, "zip": stock.torch_file, "empty": bytes}[way]()
    path.write_bytes(data)
    return f"weights {way}"


def _more(chance: random.Random, repository: Path, stock: Stock) -> str:
    path = repository / chance.choice(MORE_FILES)
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".py":
        path.write_text(stock.code())
    elif path.suffix == ".bin":
        path.write_bytes(stock.torch_file())
    else:
        tables = ("{}", '{"base_model_name_or_path": "other/evil"}', '{"weight_map": {"a": "../x"}}', "[]")
        path.write_text(chance.choice(tables))
    return f"file {path.name}"


def timm_case(chance: random.Random, folder: Path, stock: Stock) -> Case:
    """A repository of timm, which is refused by name whether the library is installed or not."""
    from hostileconfigs import TIMM_HARM, TIMM_PLACES

    repository = folder / "repository"
    repository.mkdir()
    input_: dict[str, Any] = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}
    config: dict[str, Any] = {"architecture": "resnet10t", "num_classes": 10, "pretrained_cfg": input_}
    way = chance.choice(("place", "argument", "argument", "argument", "input"))
    if way == "place":
        config["architecture"] = chance.choice(TIMM_PLACES)
    elif way == "argument":
        name = chance.choice(list(TIMM_HARM))
        config["model_args"] = {name: chance.choice(TIMM_HARM[name])}
    else:
        config["pretrained_cfg"] = leaf_changed(input_, chance, [*SIZES, *EVIL_TEXT])
    (repository / "config.json").write_text(json.dumps(config))
    (repository / "model.safetensors").write_bytes(stock.torch_file())
    return Case("timm", f"{way} {config}"[:160], ("pull", "hf://org/evil"), {"org/evil": repository})


# -- graphs and bundles


def graph_case(chance: random.Random, folder: Path, stock: Stock) -> Case:
    """An .onnx file that means harm, or is damaged."""
    path = folder / "g.onnx"
    if chance.random() < 0.25:
        source = chance.choice([graph for bundle in stock.bundles.values() for graph in sorted(bundle.glob("*.onnx"))])
        path.write_bytes(mutated(source.read_bytes(), chance))
        says = f"{source.name} mutated"
    else:
        says = write_graph(chance, path)
    return Case("graph", says, chance.choice(GRAPH_WORDS))


def bundle_case(chance: random.Random, folder: Path, stock: Stock) -> Case:
    """A bundle whose manifest, graph, weights, settings or files are not what they were; most are sealed again."""
    name = chance.choice(list(stock.bundles))
    bundle = shutil.copytree(stock.bundles[name], folder / "bundle")
    manifest = json.loads((bundle / "pocketzoo.json").read_text())
    way = chance.choice((
        "manifest", "manifest", "leaf", "leaf", "graph", "graph", "weights", "plugin", "files", "config", "config",
        "text", "text", "size", "size",
    ))  # fmt: skip
    says = ""
    if way == "manifest":
        manifest = changed(manifest, chance)
    elif way == "leaf":
        manifest = leaf_changed(manifest, chance, [*SIZES, *EVIL_TEXT])
    else:
        says = BUNDLE_WAYS[way](chance, bundle, manifest, stock)
        _seal(bundle, manifest)
    (bundle / "pocketzoo.json").write_bytes(as_json(manifest))
    return Case("bundle", f"{name} {way} {says}", chance.choice(BUNDLE_WORDS))


def _bundle_text(chance: random.Random, bundle: Path, manifest: dict[str, Any], stock: Stock) -> str:
    text = chance.choice(EVIL_TEXT)
    labels = [f"{text}{i}" for i, _ in enumerate(manifest.get("labels") or ())]
    manifest.update(name=text, labels=labels, license=text, provenance={text: text, "source": text})
    return repr(text[:20])


def _bundle_size(chance: random.Random, bundle: Path, manifest: dict[str, Any], stock: Stock) -> str:
    part = chance.choice(("model", "processor", "signature", "decoder", "generation"))
    manifest[part] = leaf_changed(manifest.get(part), chance, SIZES)
    return f"{part} {manifest[part]}"[:120]


def _bundle_plugin(chance: random.Random, bundle: Path, manifest: dict[str, Any], stock: Stock) -> str:
    """Of a plugin that is not here, or what would be found by its name if it were imported."""
    names = (
        "evil.module:run",
        "os",
        "evil",
        "../evil",
        "os.system",
        {"name": "evil", "config": {}, "provider": "evil 1"},
    )
    for key in chance.sample(("task", "decoder", "driver", "task_provider", "processor"), 2):
        manifest[key] = chance.choice(names)
    for step in manifest.get("steps") or ():
        step["compressor"] = step["provider"] = chance.choice(("evil 1.0", "os", "builtins.eval"))
    return ""


def _bundle_graph(chance: random.Random, bundle: Path, manifest: dict[str, Any], stock: Stock) -> str:
    return write_graph(chance, chance.choice(sorted(bundle.glob("*.onnx"))))


def _bundle_weights(chance: random.Random, bundle: Path, manifest: dict[str, Any], stock: Stock) -> str:
    files = sorted(bundle.glob("*.safetensors"))
    return damage_weights(chance, chance.choice(files), stock) if files else "no weights"


def _bundle_config(chance: random.Random, bundle: Path, manifest: dict[str, Any], stock: Stock) -> str:
    files = sorted(bundle.glob("backbone.*.json"))
    return _change_file(chance.choice(files), chance) if files else _bundle_size(chance, bundle, manifest, stock)


def _bundle_files(chance: random.Random, bundle: Path, manifest: dict[str, Any], stock: Stock) -> str:
    way = chance.choice(("link", "hard", "outside", "code", "engine", "folder"))
    name, entry = "extra.txt", {"sha256": "0" * 64, "size": 1}
    if way == "link":
        (bundle / name).symlink_to("/etc/passwd")
    elif way == "hard":
        (stock.folder / "other").write_text("x")
        os.link(stock.folder / "other", bundle / name)
    elif way == "outside":
        name = chance.choice(("../secret", "/etc/passwd", "a/../../secret", "\x00", "."))
    elif way == "code":
        name = "evil.py"
        (bundle / name).write_text(stock.code())
    elif way == "engine":
        name = "model.jetson-orin.fp16.engine"
        (bundle / name).write_bytes(b"\x7fELF" + b"x" * 100)
        entry |= {"target": "jetson-orin", "precision": "fp16", "backend": "tensorrt"}
    else:
        name = "folder"
        (bundle / name).mkdir()
    manifest["files"][name] = entry
    return way


BUNDLE_WAYS = {
    "text": _bundle_text, "size": _bundle_size, "plugin": _bundle_plugin, "graph": _bundle_graph,
    "weights": _bundle_weights, "config": _bundle_config, "files": _bundle_files,
}  # fmt: skip


def _seal(bundle: Path, manifest: dict[str, Any]) -> None:
    for name, entry in manifest.get("files", {}).items():
        with contextlib.suppress(OSError, ValueError, TypeError):
            data = (bundle / name).read_bytes()
            entry["size"], entry["sha256"] = len(data), hashlib.sha256(data).hexdigest()


# -- data


def archive_case(chance: random.Random, folder: Path, stock: Stock) -> Case:
    """An .npz or an image that unpacks to more than it seems, or something that is neither."""
    import numpy as np

    way, path = chance.choice(("bomb", "header", "pickle", "png", "eps")), folder / "evil.npz"
    raw = io.BytesIO()

    def write_header(kind: str, shape: tuple[int, ...]) -> None:
        facts = {"descr": kind, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(raw, facts)

    if way == "bomb":
        size = chance.choice((2**24, 2**27))
        write_header("|u1", (2, chance.choice((size, 2**33)) // 2))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", raw.getvalue() + bytes(size))
    elif way == "header":
        write_header("<f8", chance.choice(((10**12, 4), (2**62, 2**62), (-1, 4), (2**33,))))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", raw.getvalue() + bytes(100))
    elif way == "pickle":
        write_header("|O", (3,))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", raw.getvalue() + stock.pickled())
            archive.writestr("y.pkl", stock.pickled())
    else:
        path = folder / "evil.png"
        path.write_bytes(
            _png(chance) if way == "png" else b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
        )
    shutil.copytree(stock.bundles["image-classifier"], folder / "bundle")
    predict, evaluate = ("predict", "bundle", path.name), ("eval", "bundle", "--data", path.name)
    return Case("archive", way, predict if path.suffix == ".png" or chance.random() < 0.5 else evaluate)


def _png(chance: random.Random) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = chance.choice((8_000, 40_000, 2**31 - 1))
    rows = bytes(1 << 20 if side > 20_000 else side * (side + 1))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50 << 20)))
    return b"\x89PNG\r\n\x1a\n" + head + text + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
