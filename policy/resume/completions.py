"""The completion store: complete texts of rollouts that are not trained on yet, for a resumed run.

A text is at `<run>/texts/<group>/<rollout>.json` and takes about 11 bytes per token.

Invariants:
- a text is saved completely or not at all;
- token ids are stored exactly, log-probabilities in the precision of training (32 bits);
- a text survives a crash of the process at once, and of the machine soon after.
"""

from __future__ import annotations

import array
import base64
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from workers.messages import Message
from workers.storage.atomic import save

TEXTS = "texts"
SUFFIX = ".json"
Versions = tuple[int, int]


class CompletionSegment(Message):
    """One segment: token ids and log-probabilities (32 bits each, base64).

    `version`: trainer steps of the oldest and newest weights that wrote it.
    """

    token_ids: str
    log_probs: str
    version: Versions | None

    @classmethod
    def of(
        cls, token_ids: Sequence[int], log_probs: Sequence[float], version: Versions | None
    ) -> CompletionSegment:
        return cls(token_ids=_packed("i", token_ids), log_probs=_packed("f", log_probs), version=version)

    def ids(self) -> list[int]:
        return _unpacked("i", self.token_ids)

    def probs(self) -> list[float]:
        return _unpacked("f", self.log_probs)


class Completion(Message):
    """The segments of a text, in order. `time`: when it was complete, in Unix seconds. `out_of_time`: it was
    cut because its time had run out.
    """

    time: float
    pieces: tuple[CompletionSegment, ...]
    out_of_time: bool = False

    @property
    def versions(self) -> Versions | None:
        """Trainer steps of the oldest and newest weights that wrote it; None if unknown."""
        known = [piece.version for piece in self.pieces if piece.version is not None]
        if not known:
            return None
        return min(oldest for oldest, _ in known), max(newest for _, newest in known)


class CompletionStore:
    """The store of one run. Blocking; takes as long as the disk."""

    def __init__(self, run: Path):
        self._run = run
        self._folder = run / TEXTS
        self._syncing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="texts-sync")

    def save(self, rollout_id: str, text: Completion) -> None:
        path = file_of(self._run, rollout_id, SUFFIX)
        save(path, text.model_dump_json())
        self._syncing.submit(_sync, path)

    def load(self, rollout_id: str) -> Completion | None:
        """Load a text; None if there is none, or a crash of the machine damaged it."""
        try:
            return Completion.model_validate_json(file_of(self._run, rollout_id, SUFFIX).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def forget(self, uids: set[str]) -> None:
        """Remove the texts of these groups."""
        for uid in uids:
            shutil.rmtree(self._folder / uid, ignore_errors=True)

    def forget_all(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def file_of(run: Path, rollout_id: str, suffix: str) -> Path:
    """The path of a file of a rollout, which `forget` removes with the texts of its group."""
    return run / TEXTS / rollout_id.rpartition("_")[0] / f"{rollout_id}{suffix}"


def _sync(path: Path) -> None:
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return  # removed, because its group was trained on
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _packed(kind: str, values: Sequence[int] | Sequence[float]) -> str:
    return base64.b64encode(array.array(kind, values).tobytes()).decode()


def _unpacked(kind: str, text: str) -> list:
    return array.array(kind, base64.b64decode(text)).tolist()
