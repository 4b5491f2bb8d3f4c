"""The ranks of verl's SFT trainer: one process for each GPU of this machine, or one of several on a CPU.

Invariants: a rank ends with this process, and when another one fails. They find each other by a file in the
folder of the run, so that no port is taken.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from coordinator.run.trainer import Trainer
from policy.settings import TrainSettings, environment

MODULE = "policy.sft.main"


class Ranks:
    """A context manager that starts them. `folder`: an empty working directory."""

    def __init__(self, train: TrainSettings, options: Sequence[str], run: Path, folder: Path):
        count = train.trainer_gpus
        self._rendezvous = run / "rendezvous"
        logs = [
            run / "logs" / ("trainer.log" if rank == 0 else f"trainer-{rank}.log") for rank in range(count)
        ]
        shared = {
            **environment(train, run=run),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",  # verl reads address and port; with the file nothing uses them
            "MASTER_PORT": "0",
            "DIST_INIT_METHOD": self._rendezvous.absolute().as_uri(),
            "GLOO_SOCKET_IFNAME": "lo",
        }
        if train.device == "cpu":  # nothing else runs beside it, unlike in a run with generators
            shared["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // count))
        self._ranks = [
            Trainer(options, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, log, folder, MODULE)
            for rank, log in enumerate(logs)
        ]

    def __enter__(self) -> Ranks:
        self._rendezvous.unlink(missing_ok=True)  # of a run that died
        try:
            for rank in self._ranks:
                rank.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for rank in self._ranks:
            rank.stop()
        self._rendezvous.unlink(missing_ok=True)

    @property
    def running(self) -> bool:
        """Whether any is running. Raises `TrainerDied` when one ended with an error."""
        for rank in self._ranks:
            if not rank.running:
                rank.check()
        return any(rank.running for rank in self._ranks)
