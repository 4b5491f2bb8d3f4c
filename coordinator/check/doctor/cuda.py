"""Findings about the parts of a GPU run that a CPU installation lacks: flash-attn, NCCL, cupy.

Each is imported in a process of its own, since a build for another torch fails only then.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from coordinator.check.doctor.finding import Finding, fail, note, ok
from coordinator.config.settings import RAY_ENV, RunConfig, ServiceConfig
from policy.settings import TrainSettings
from workers.process.interpreter import PYTHON, child_environment

AREA = "CUDA"
IMPORT_S = 120.0
INSTALL = "run ops/install.sh gpu"


@dataclass(frozen=True)
class Part:
    """One part. `code` fails without it; `use`: what needs it; `needed`: whether a GPU run does."""

    name: str
    code: str
    use: str
    hint: str = INSTALL
    needed: Callable[[TrainSettings], bool] = lambda train: True


PARTS = (
    Part("torch", "import torch; assert torch.version.cuda, 'a CPU build'", "training and generation"),
    Part(
        "flash-attn",
        "import flash_attn",
        "verl's trainer: attention and padding removal",
        ".venv/bin/pip install flash-attn --no-build-isolation, which builds it for this torch",
    ),
    Part(
        "NCCL",
        "import torch.distributed as d; assert d.is_nccl_available(), 'this torch was built without it'",
        "verl's process groups, on one GPU too",
    ),
    Part(
        "cupy",
        "from cupy.cuda import nccl",
        "weights from trainer to generators (separate_async)",
        needed=lambda train: train.mode == "separate_async",
    ),
)


def examine(config: ServiceConfig, gpus: int, parts: Sequence[Part] = PARTS) -> Iterator[Finding]:
    """Findings about `parts`, where this machine has GPUs or `config` trains on some.

    A missing part fails where this machine would train with it; on a cluster each node has its own packages.
    """
    train = config.train if isinstance(config, RunConfig) and config.train.device == "cuda" else None
    if not train and not gpus:
        return
    here = gpus > 0 and not os.environ.get(RAY_ENV)
    for part in parts:
        needed = train is not None and part.needed(train)
        problem = _problem(part)
        detail = f"{problem}; needed for {part.use}"
        if not problem:
            yield ok(AREA, part.name, "can be imported")
        elif needed and here:
            yield fail(AREA, part.name, detail, part.hint)
        else:
            where = "on the nodes that train" if needed else "before a run that needs it"
            yield note(AREA, part.name, detail, f"{where}: {part.hint}")


def _problem(part: Part) -> str:
    """Why the part cannot be used, in one line; empty when it can."""
    try:
        done = subprocess.run(
            [*PYTHON, "-c", part.code],
            capture_output=True,
            text=True,
            timeout=IMPORT_S,
            check=False,
            env=child_environment(os.environ),
        )
    except subprocess.TimeoutExpired:
        return f"not imported within {IMPORT_S:.0f} s"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return (lines[-1] if lines else f"exit code {done.returncode}") if done.returncode else ""
