"""The ranks of `llmi sft`: how they find each other, and which error is shown when they fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from cpu_train import CPU_TRAIN
from waiting import wait_until

from coordinator.run.trainer import TrainerDied
from coordinator.sft import ranks
from coordinator.sft.ranks import Ranks, variables
from policy.settings import TrainSettings

# Rank 1 fails after both are connected; rank 0 waits for it and loses the connection.
PROGRAM = """
import os
import torch.distributed as dist

own = {"rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])}
as_on_a_gpu = "?" in os.environ["DIST_INIT_METHOD"]
dist.init_process_group("gloo", init_method=os.environ["DIST_INIT_METHOD"], **({} if as_on_a_gpu else own))
dist.barrier()
if dist.get_rank() == 1:
    raise ArithmeticError("the fault of rank 1")
dist.barrier()
"""


def test_the_environment_of_a_rank_on_a_gpu_names_it_in_the_url():
    """verl passes torch the URL alone."""
    found = variables(TrainSettings(model="m", trainer_gpus=2), Path("/runs/a é"), 1)
    assert found["DIST_INIT_METHOD"] == "file:///runs/a é/rendezvous?rank=1&world_size=2"


def test_the_environment_of_a_rank_on_a_cpu_does_not():
    """torch refuses a rank that is given twice."""
    found = variables(TrainSettings(**CPU_TRAIN), Path("/runs/a é"), 0)
    assert found["DIST_INIT_METHOD"] == "file:///runs/a é/rendezvous"


@pytest.mark.heavy
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_two_ranks_meet_and_the_error_is_that_of_the_one_that_failed(tmp_path, monkeypatch, device):
    (tmp_path / "program_of_ranks.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(ranks, "MODULE", "program_of_ranks")
    train = TrainSettings(**CPU_TRAIN).model_copy(update={"device": device, "trainer_gpus": 2})
    run = tmp_path / "a run é"
    with Ranks(train, [], run, tmp_path / "work") as started:
        with pytest.raises(TrainerDied, match="the fault of rank 1"):
            wait_until(lambda: not started.running, 60)
    assert not (run / "rendezvous").exists()
    assert "onnection" in (run / "logs" / "trainer.log").read_text()


class Ended:
    """A rank that has ended."""

    running = False

    def __init__(self, why: str):
        self._why = why

    def check(self) -> None:
        if self._why:
            raise TrainerDied(f"the trainer ended with {self._why}\nFrom trainer.log:\n")


CLOSED = "exit code 1: RuntimeError: [pair.cc:525] Connection closed by peer [127.0.0.1]:4242"
EXITED = "exit code 1: torch.distributed.DistBackendError: NCCL error in: a.cpp:1, remote process exited or"


@pytest.mark.parametrize("follows", [CLOSED, EXITED, "signal SIGABRT: "])
@pytest.mark.parametrize("first", ["exit code 1: ValueError: wrong", "signal SIGKILL"])
def test_a_lost_connection_is_not_the_cause(follows, first):
    for order in ([follows, first], [first, follows]):
        started = Ranks(TrainSettings(**CPU_TRAIN), [], Path("run"), Path("work"))
        started._ranks = [Ended(one) for one in order]
        with pytest.raises(TrainerDied, match=first):
            _ = started.running


def test_a_lost_connection_alone_is_shown():
    started = Ranks(TrainSettings(**CPU_TRAIN), [], Path("run"), Path("work"))
    started._ranks = [Ended(""), Ended(CLOSED)]
    with pytest.raises(TrainerDied, match="Connection closed"):
        _ = started.running
