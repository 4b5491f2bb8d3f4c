"""The ranks of verl's SFT trainer: one process for each GPU of this machine, or one of several on a CPU.

Invariants: a rank ends with this process, and when another one fails. They find each other by a file in the
folder of the run, so that no port is taken.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from coordinator.run.trainer import Trainer, TrainerDied
from policy.settings import TrainSettings, environment

MODULE = "policy.sft.main"
CAUSE_WAIT_S = 5.0  # after a rank lost its connection: for the rank that broke it to end
POLL_S = 0.1
# The first line of the error of a rank that another rank has left.
_CONNECTION = re.compile(
    r"ended with (?:signal SIGABRT|.*(?:connection (?:was )?(?:closed|reset|refused)|broken pipe"
    r"|remote process exited))",
    re.IGNORECASE,
)


class Ranks:
    """A context manager that starts them. `folder`: an empty working directory."""

    def __init__(self, train: TrainSettings, options: Sequence[str], run: Path, folder: Path):
        self._rendezvous = rendezvous(run)
        self._ranks = [
            Trainer(options, variables(train, run, rank), _log(run, rank), folder, MODULE)
            for rank in range(train.trainer_gpus)
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
        """Whether any is running. Raises `TrainerDied` when one ended with an error.

        When a rank fails, the others lose their connection to it and fail too. The error is that of a rank
        with another error than that, if one ends within `CAUSE_WAIT_S`.
        """
        deadline = time.monotonic() + CAUSE_WAIT_S
        while errors := list(self._errors()):
            causes = [error for error in errors if not _CONNECTION.search(str(error).partition("\n")[0])]
            waits = any(rank.running for rank in self._ranks) and time.monotonic() < deadline
            if causes or not waits:
                raise (causes or errors)[0]
            time.sleep(POLL_S)
        return any(rank.running for rank in self._ranks)

    def _errors(self) -> Iterator[TrainerDied]:
        for rank in self._ranks:
            if not rank.running:
                try:
                    rank.check()
                except TrainerDied as error:
                    yield error


def variables(train: TrainSettings, run: Path, rank: int) -> dict[str, str]:
    """The environment of a rank."""
    count = str(train.trainer_gpus)
    url = f"file://{rendezvous(run)}"  # torch 2.13 does not unquote it, so it is no `as_uri()`
    if train.device == "cuda":  # verl 0.9.1 passes torch the URL alone, `policy.cpu.gloo` also the rank
        url += f"?rank={rank}&world_size={count}"
    own = {
        **environment(train, run=run),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",  # verl reads address and port; with the file nothing uses them
        "MASTER_PORT": "0",
        "DIST_INIT_METHOD": url,
        "GLOO_SOCKET_IFNAME": "lo",
    }
    if train.device == "cpu":  # nothing else runs beside it, unlike in a run with generators
        own["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // train.trainer_gpus))
    return own


def rendezvous(run: Path) -> Path:
    """The file by which the ranks find each other."""
    return run.absolute() / "rendezvous"


def _log(run: Path, rank: int) -> Path:
    return run / "logs" / ("trainer.log" if rank == 0 else f"trainer-{rank}.log")
