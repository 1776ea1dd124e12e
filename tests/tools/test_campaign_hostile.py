"""Hostile models of every kind, used by commands under the audit hook; and a hook that notices what it is for."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools")]

import campaign_cases  # noqa: E402
import campaign_graphs  # noqa: E402
import campaign_hostile  # noqa: E402
from campaign_cases import Case, Stock  # noqa: E402
from hostileconfigs import HOSTILE, TIMM_HARM, TIMM_PLACES  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # Python warns of the threads that a test has
    pytest.mark.skipif(sys.platform != "linux", reason="limits and forks as Linux has them"),
]


@pytest.fixture(scope="session")
def stock(tmp_path_factory):
    made = Stock(tmp_path_factory.mktemp("stock") / "stock")
    campaign_hostile.preload()
    return made


@pytest.fixture
def place(tmp_path):
    (tmp_path / "case").mkdir()
    campaign_hostile.common_files(tmp_path / "case")
    return tmp_path


HARM = {
    "read": ("open({secret!r})", "read "),
    "write": ("open({secret!r} + '2', 'w')", "write "),
    "remove": ("__import__('os').remove({secret!r})", "os.remove"),
    "unpickle": ("__import__('pickle').loads({pickle!r})", "pickle.find_class"),
    "process": ("__import__('subprocess').run(['true'])", "subprocess.Popen"),
    "connect": ("__import__('socket').socket().connect(('192.0.2.1', 9))", "socket.connect"),
    "look up": ("__import__('socket').getaddrinfo('example.com', 80)", "socket.getaddrinfo"),
    "exception": ("1 / 0", "traceback: ZeroDivisionError"),
    "signal": ("__import__('os').kill(__import__('os').getpid(), 9)", "ended with -9"),
    "code": ("open({canary!r}, 'w')", "its code ran"),
    "escape": ("print('\\x1b[2J')", "a control character"),
    "exit": ("__import__('os')._exit(1)", "without two lines"),
}


@pytest.mark.parametrize("way", HARM)
def test_what_must_not_happen_is_found(way, place, stock, monkeypatch):
    """So that finding nothing means something."""
    code, says = HARM[way]
    values = {"secret": str(place / "secret"), "canary": str(stock.canary), "pickle": stock.pickled()}

    def main() -> None:
        try:
            eval(code.format(**values))
        except OSError:
            sys.exit(0)

    monkeypatch.setattr("pocketzoo.cli.main.main", main)
    found, _ = campaign_hostile.used(Case("harm", way, ("verify",)), place, stock)
    assert any(says in line for line in found), found


def test_a_command_that_does_no_harm_finds_nothing(place, stock):
    found, said = campaign_hostile.used(
        Case("none", "", ("predict", str(stock.bundles["agent"]), "x.npz")), place, stock
    )
    assert found == []
    assert said


def test_a_seed_makes_the_same_cases(stock, tmp_path):
    def made(seed: int, number: int) -> tuple[str, str, tuple[str, ...]]:
        folder = tmp_path / f"{seed}-{number}-{random.random()}"
        folder.mkdir()
        case = campaign_cases.make_case(random.Random(f"{seed} hostile {number}"), folder, stock)
        return case.kind, case.says, case.words

    first = [made(1, number) for number in range(20)]
    assert first == [made(1, number) for number in range(20)]
    assert len(set(first)) > 15
    assert {kind for kind, _, _ in first} >= {"transformers", "bundle", "graph"}


def test_a_shard_runs_in_a_process_of_its_own(tmp_path):
    shard = campaign_hostile.run(7, 8.0, tmp_path)
    assert sum(shard.tried.values()) >= 1
    assert shard.findings == []


# -- every kind of harm once: settings x values x libraries, graphs, bundles


def _graphs(place: Path, stock: Stock, chance: random.Random):
    for way, make in campaign_graphs.WAYS.items():
        for big in (2**20, 2**33):
            for words in (("check", "g.onnx", "--target", "cpu"), ("predict", "g.onnx", "x.npz")):
                model = campaign_graphs.model_of(make(chance, big), "g")
                (place / "case" / "g.onnx").write_bytes(model.SerializeToString())
                yield Case("graph", f"{way} {big}", words)


def _bundles(place: Path, stock: Stock, chance: random.Random):
    for _ in range(60):
        yield campaign_cases.bundle_case(chance, place / "case", stock)


def _transformers(place: Path, stock: Stock, chance: random.Random):
    """Through the real client of the Hub."""
    for family in ("bert", "vit"):
        config = json.loads((stock.repositories[family] / "config.json").read_text())
        for name, values in HOSTILE.items():
            for value in values:
                repository = place / "case" / "repository"
                campaign_cases.shutil.copytree(stock.repositories[family], repository)
                (repository / "config.json").write_text(json.dumps({**config, name: value}))
                yield Case(
                    "transformers", f"{family} {name}={value}", ("pull", "hf://org/evil"), {"org/evil": repository}
                )


def _timm(place: Path, stock: Stock, chance: random.Random):
    plain = {"num_classes": 10, "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}}
    configs = [{**plain, "architecture": each} for each in TIMM_PLACES]
    configs += [
        {**plain, "architecture": "resnet10t", "model_args": {name: value}}
        for name, values in TIMM_HARM.items()
        for value in values
    ]
    for config in configs:
        repository = place / "case" / "repository"
        repository.mkdir()
        (repository / "config.json").write_text(json.dumps(config))
        (repository / "model.safetensors").write_bytes(stock.torch_file())
        yield Case("timm", str(config), ("pull", "hf://org/evil"), {"org/evil": repository})


def _archives(place: Path, stock: Stock, chance: random.Random):
    for _ in range(12):
        yield campaign_cases.archive_case(chance, place / "case", stock)


KINDS = {"graphs": _graphs, "bundles": _bundles, "transformers": _transformers, "timm": _timm, "archives": _archives}
LEAST = {"graphs": 40, "bundles": 50, "transformers": 110, "timm": 80, "archives": 3}  # of them distinct


def _held(kind: str, root: Path, stock: Stock, every: int = 1) -> set[str]:
    """What was tried of a kind, of which nothing happened."""
    tried: set[str] = set()
    chance = random.Random(kind)
    place = root / "place"
    (place / "case").mkdir(parents=True)
    for number, case in enumerate(KINDS[kind](place, stock, chance)):
        campaign_hostile.common_files(place / "case")
        if number % every == 0:
            found, said = campaign_hostile.used(case, place, stock)
            assert found == [], (case, said)
            tried.add(f"{case.says} {case.words}")
        campaign_cases.shutil.rmtree(place)
        (place / "case").mkdir(parents=True)
    return tried


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_each_kind(kind, stock, tmp_path):
    assert _held(kind, tmp_path, stock, every=25)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_harm(kind, stock, tmp_path):
    assert sum(LEAST.values()) > 280
    assert len(_held(kind, tmp_path, stock)) >= LEAST[kind]
