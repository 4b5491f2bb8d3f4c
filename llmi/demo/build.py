"""Builds the demo's parts that the cache lacks: prompts, image library, image models, tiny policy.

Invariants: they are built in a child process, so that torch is not in memory when the run begins; the child
ends with this process and ignores Ctrl-C; each part appears whole or not at all, so that an interrupted build
can be repeated.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from rich.console import Console

from coordinator.console.stages import Stages, Step
from coordinator.console.terminal import print_line
from llmi.demo.policy.build import cut_short
from workers.errors import ConfigError
from workers.storage.cache import CACHE_ENV as CACHE_ENV
from workers.storage.cache import cache_folder as cache_folder

logger = logging.getLogger(__name__)
LOG = "build.log"
CUT_SHORT = (
    "This machine was too slow, or too busy, to train the tiny policy in full: a time limit stopped it. Its "
    "rewards will be lower and not repeatable, and it will be trained again next time."
)
SENT_EVERY_S = 0.2
PR_SET_PDEATHSIG = 1
Kind = Literal["text", "vl"]


class BuildFailed(RuntimeError):
    """A part of the demo could not be built."""


@dataclass(frozen=True)
class Parts:
    """The folders of the demo's parts. Without `policy` none is built: another model is the author."""

    cache: Path
    kind: Kind
    seed: int
    policy: bool = True

    @property
    def prompts(self) -> Path:
        return self.cache / f"prompts-{self.seed}"

    @property
    def library(self) -> Path:
        return self.cache / "library"

    @property
    def image_model(self) -> Path:
        return self.cache / "tiny-image"


def build(parts: Parts, console: Console) -> Path:
    """Build what is missing, with progress on `console`; returns the policy's folder, if there is one.

    Raises `BuildFailed`, or `ConfigError` when the cache cannot be made.
    """
    try:
        parts.cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # such as a full file system, which permissions do not show
        why = f"cannot be made ({error.strerror})"
        raise ConfigError(f"{CACHE_ENV}: {parts.cache} {why}; name another folder") from error
    context = multiprocessing.get_context("spawn")
    reading, writing = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(parts, writing, os.getpid()), name="llmi-build", daemon=True)
    child.start()
    writing.close()
    try:
        with Stages(console) as stages:
            while True:
                try:
                    kind, name, share, detail = reading.recv()
                except EOFError as error:
                    child.join(10)
                    why = f"the build process ended with exit code {child.exitcode}"
                    raise BuildFailed(f"{why}; see {parts.cache / LOG}") from error
                if kind == "done":
                    child.join(10)
                    if cut_short(Path(name)):
                        print_line(console, CUT_SHORT, style="yellow")
                    return Path(name)
                if kind == "failed":
                    raise BuildFailed(name)
                stages.step(name, share, detail)
    finally:
        child.kill()
        child.join(10)


def _child(parts: Parts, pipe: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return

    sent: tuple[str, float] = ("", 0.0)

    def step(name: str, share: float | None = None, detail: str = "") -> None:
        """Send the current step, at most every `SENT_EVERY_S` for one name."""
        nonlocal sent
        now = time.monotonic()
        if name != sent[0] or now - sent[1] >= SENT_EVERY_S:
            sent = name, now
            pipe.send(("stage", name, share, detail))

    # Progress bars and warnings of libraries go to a file.
    log = os.open(parts.cache / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.INFO)
    try:
        pipe.send(("done", str(_build(parts, step)), None, ""))
    except Exception as error:
        logger.exception("building failed")
        pipe.send(("failed", f"{type(error).__name__}: {error} (see {parts.cache / LOG})", None, ""))


def _build(parts: Parts, step: Step) -> Path:
    from llmi.demo.image_models.pipelines import build_tiny_pipelines
    from llmi.demo.library import build_library
    from llmi.demo.policy.build import build_policy
    from llmi.demo.prompts.corpus import write_dataset

    step("writing the prompts", None, "")
    with tempfile.TemporaryDirectory(dir=parts.cache, prefix=".prompts-") as work:
        parts.prompts.mkdir(exist_ok=True)
        for path in write_dataset(work, seed=parts.seed).values():
            path.replace(parts.prompts / path.name)
    step("drawing the image library", None, "")
    build_library(parts.library, progress=lambda share: step("drawing the image library", share, ""))
    step("making the tiny image models", None, "loading PyTorch and diffusers")
    build_tiny_pipelines(parts.image_model, lambda share: step("making the tiny image models", share, ""))
    if not parts.policy:
        return parts.cache
    name = f"training the tiny {parts.kind} policy"

    def progress(share: float, text: str) -> None:
        if share < 1.0:  # else it was in the cache
            step(name, share, text)

    return build_policy(parts.kind, parts.cache, seed=parts.seed, progress=progress)
