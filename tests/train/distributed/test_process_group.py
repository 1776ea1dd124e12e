"""Processes that train together: one that is lost ends the others with an error that says what next."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from told import Told
from torch import distributed, nn

from pocketzoo.core.errors import ProcessLostError
from pocketzoo.core.progress import SILENT
from pocketzoo.train.distributed import process_group
from pocketzoo.train.distributed.process_group import World, joined


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 13])
def test_every_sample_of_a_batch_is_in_one_part(count, size):
    parts = [list(World(rank, size).share(range(count))) for rank in range(size)]
    assert sorted(row for part in parts for row in part) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_is_a_world_of_its_own(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as world:
        assert (world.first, world.size) == (True, 1)
        told, module = Told(), nn.Linear(2, 2)
        assert world.heard(told) is told
        assert world.spread(module) is module
        assert world.tell("x") == "x"
        assert torch.equal(world.sum(torch.arange(3)), torch.arange(3))
        world.agree(module)
        world.wait()
        draws = []
        for _ in range(2):
            world.seed(7)
            draws.append(torch.rand(4))
        assert torch.equal(*draws)
    assert World(rank=1, size=2).heard(told) is SILENT


@pytest.mark.slow
def test_processes_can_meet_again_and_again(tmp_path):
    """As in a script that fits one model after the other."""
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\n"
        "from pocketzoo.train.distributed.process_group import joined\n"
        "for i in range(3):\n"
        "    with joined() as world:\n"
        "        assert world.sum(torch.ones(1)).item() == world.size == 2\n"
        "        world.wait()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "--master-port", str(free_port()), script], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_process_that_is_lost_ends_the_run_with_an_error(few, tmp_path):
    """As torchrun starts them; torchrun itself would end the other one before it has said why."""
    np.savez(tmp_path / "few.npz", x=few.split("train").samples, y=few.split("train").targets)
    out, data = tmp_path / "x", tmp_path / "few.npz"
    command = [sys.executable, "-m", "pocketzoo", "fit", "tinynet", "--data", data, "-o", out, "--unfreeze", "last:1"]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    errors = tmp_path / "stderr"
    with errors.open("wb") as file:
        processes = [
            subprocess.Popen(
                [*command, "--epochs", "100000"],
                env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stderr=subprocess.DEVNULL if rank else file,
            )
            for rank in range(2)
        ]
    try:
        deadline = time.monotonic() + 600
        while not (tmp_path / ".x.run" / "training.safetensors").exists():
            assert time.monotonic() < deadline
            assert [process.poll() for process in processes] == [None, None]
            time.sleep(0.05)
        processes[1].kill()
        assert processes[0].wait(600) == 1
        said = errors.read_text("utf8")
        assert "error: another of the 2 processes ended" in said
        assert "the same command resumes from the last checkpoint" in said
        assert "Traceback" not in said
    finally:
        for process in processes:
            process.kill()
            process.wait()


# -- a group of one, which is enough for what is said


@pytest.fixture
def connected(monkeypatch):
    """``joined`` connects this process with no other, as torchrun's processes are."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(process_group, "_meeting", lambda: (distributed.HashStore(), 0, 1))


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("sign", ["Connection closed by peer", "gloo: it broke", "NCCL error", "Timed out"])
def test_what_the_network_says_when_another_ends_is_explained(sign, refused):
    with refused(ProcessLostError, f"another of the 1 processes ended: {sign}", hint="resumes"), joined() as world:
        assert (world.rank, world.size, world.device.type) == (0, 1, "cpu")
        assert distributed.is_initialized()
        raise RuntimeError(f"{sign}\nand where in its source")
    assert not distributed.is_initialized()


@pytest.mark.usefixtures("connected")
def test_other_errors_pass_and_the_group_ends_all_the_same():
    with pytest.raises(RuntimeError, match="shapes do not fit"), joined():
        raise RuntimeError("shapes do not fit")
    assert not distributed.is_initialized()
    with joined() as world:
        world.wait()
    assert not distributed.is_initialized()


def test_a_world_says_which_of_its_processes_is_the_first():
    assert World() == World(rank=0, size=1, device=torch.device("cpu"))
    assert [World(rank, 3).first for rank in range(3)] == [True, False, False]
    assert [list(World(rank, 3).share(range(7))) for rank in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]
