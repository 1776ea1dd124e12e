"""The campaign's frame: seeds, sums, and a fuzzer that notices what it is for."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "benchmarks")]

import campaign  # noqa: E402
import campaign_fuzz  # noqa: E402
import campaign_kills  # noqa: E402
import campaign_readers  # noqa: E402
import page_campaign  # noqa: E402

from pocketzoo.core.errors import DataError  # noqa: E402

ENTRY = {"commit": "a", "kind": "fuzz", "seed": 1, "seconds": 60.0, "tried": {"lock": 5, "csv": 2}, "findings": ["x"]}


def test_shards_of_one_commit_add_up(tmp_path):
    path = tmp_path / "campaign.json"
    for changes in ({}, {"seed": 2}, {"seed": 2, "tried": {"lock": 7}, "findings": []}, {"commit": "b"}):
        campaign.keep(path, {**ENTRY, **changes})
    shards = json.loads(path.read_text())["shards"]
    assert [(each["commit"], each["seed"]) for each in shards] == [("a", 1), ("a", 2), ("b", 1)]
    assert campaign.totals(shards) == {
        "a": {"fuzz": {"shards": 2, "findings": 1, "lock": 12, "csv": 2}},
        "b": {"fuzz": {"shards": 1, "findings": 1, "lock": 5, "csv": 2}},
    }
    page = page_campaign.render({"shards": shards})
    assert "1 shard, 1 minutes, 7 tried, 1 findings." in page, "of the newest commit all"
    assert "| a | fuzz | 2 | 14 | 1 |" in page, "of others the sums"


def test_the_page_begins_with_the_sums_over_kinds():
    other = {"kind": "kills", "tried": {"kill: sign": 30, "kill: fit": 10, "full disks": 2}, "findings": []}
    lines = page_campaign.render({"shards": [ENTRY, {**ENTRY, **other}]}).splitlines()
    rows = ["| fuzz | 1 | 0 | 7 | 1 |", "| kills | 1 | 40 | 2 | 0 |", "| together | 2 | 40 | 9 | 1 |"]
    at = lines.index(rows[0])
    assert lines[at : at + 3] == rows
    assert at < min(lines.index(f"### {kind}") for kind in ("fuzz", "kills"))


def test_each_kind_is_described():
    assert not [kind for kind in campaign.KINDS if len(page_campaign.KINDS.get(kind, "")) < 40]


def test_the_page_is_what_the_file_says():
    result = json.loads(campaign.RESULTS.read_text("utf8"))
    assert (ROOT / "docs" / "campaign.md").read_text("utf8") == page_campaign.render(result)


@pytest.mark.parametrize("data", [b'{"a": [1, {"b": "c"}]}', b"x = 1\n", b"\x00" * 50], ids=repr)
def test_a_seed_gives_the_same_inputs(data):
    def draw(seed):
        chance = random.Random(seed)
        return [campaign_fuzz.variant(data, chance) for _ in range(50)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert len(set(draw(1))) > 25


@pytest.mark.parametrize("name", ["lock", "recipe", "jsonl", "csv", "samples", "record", "listing", "plan", "config"])
def test_readers_read_what_is_valid(name, tmp_path):
    valid, read = campaign_readers.READERS[name](tmp_path)
    for data in valid:
        read(data)


def test_a_reader_that_fails_is_found(tmp_path, monkeypatch):
    """An exception that is none of ours, and a process that ends; an error of ours is none."""
    (tmp_path / "toy_readers.py").write_text(
        "import os\nfrom pocketzoo.core.errors import DataError\n"
        "def make(folder):\n"
        "    count = [0]\n"
        "    def read(data):\n"
        "        count[0] += 1\n"
        "        if count[0] == 30: raise KeyError('lost')\n"
        "        if count[0] == 60: os.abort()\n"
        "        if count[0] > 1: raise DataError('no', 'none')\n"
        "    return [b'valid'], read\n"
        "READERS = {'toy': make}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CAMPAIGN_READERS", "toy_readers")
    shard = campaign_fuzz.run(0, 4.0, tmp_path)
    assert shard.tried["toy"] > 20
    assert any("KeyError" in line and "lost" in line for line in shard.findings), shard.findings
    assert any("the process ended with -6" in line for line in shard.findings), shard.findings
    assert not any("DataError" in line for line in shard.findings)
    assert issubclass(DataError, Exception)


OLD, NEW = {"files": {"a": "1"}, "manifest": "x"}, {"files": {"a": "2", "b": "3"}, "manifest": "y"}


@pytest.mark.parametrize(
    ("now", "finding"),
    [
        ({"B": OLD}, ""),
        ({"B": NEW}, ""),
        ({"B": {**NEW, "manifest": "of another time"}, "x.html": "a file"}, ""),
        ({"B": {"files": {"a": "2"}, "manifest": "z"}}, "torn"),
        ({"B": {"files": {"a": "4", "b": "3"}, "manifest": "z"}}, "torn"),
        ({"B": OLD, "C": NEW}, "torn"),
        ({}, "lost"),
        (campaign_kills.ChildError("B/a is damaged"), "torn"),
    ],
)
def test_a_kill_that_tears_or_loses_a_bundle_is_found(now, finding, tmp_path, monkeypatch):
    def asked(_):
        if isinstance(now, Exception):
            raise now
        return now

    worker = campaign_kills.Worker(0, tmp_path, tmp_path, random.Random(0))
    worker.before, worker.usual = {"B": OLD}, {"sign": campaign_kills.Usual(None, {"B": NEW})}
    monkeypatch.setattr(campaign_kills, "asked", asked)
    worker.is_whole("sign", "at once", tmp_path)
    assert [line.split(":")[0] for line in worker.findings] == [finding] * bool(finding)


@pytest.mark.slow
def test_commands_die_and_nothing_is_found(tmp_path):
    shard = campaign_kills.run(0, 0.0, tmp_path, "export to")
    assert shard.findings == []
    assert any(what.startswith("kill: export to") for what in shard.tried), shard.tried


@pytest.mark.slow
def test_the_smoke_finds_nothing():
    done = subprocess.run(
        [sys.executable, "tools/campaign.py", "--smoke"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
