"""The documents of a step, read from the ledger of a run that is in progress.

Invariants: every line is read once; a document is kept until its rollout has its terminal state, and if it
was trained on, until its step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from policy.ledger.entries import ENTRY, LEDGER, RolloutEnded, Scored

_SCORED, _ENDED = b'{"type":"scored"', b'{"type":"closed"'


class TrainedDocuments:
    """Reads what processes of the run append to the ledger from now on."""

    def __init__(self, run: Path):
        self._folder = run / LEDGER
        self._read = {path: path.stat().st_size for path in self._files()}
        self._open: dict[str, Scored] = {}
        self._trained: dict[int, list[Scored]] = defaultdict(list)  # of later steps than the last asked for

    def of(self, step: int) -> list[Scored]:
        """The documents that `step` trained on, the lowest reward first; call it with growing steps.

        It reads all that was appended since the last call, so call it at each step. The run may be ahead of
        `step`.
        """
        new = (line for path in self._files() for line in self._new_lines(path))
        lines = [line for line in new if line.startswith((_SCORED, _ENDED))]
        for line in lines:
            if line.startswith(_SCORED) and isinstance(entry := ENTRY.validate_json(line), Scored):
                self._open[entry.document.rollout_id] = entry
        for line in lines:
            if line.startswith(_ENDED) and isinstance(ended := ENTRY.validate_json(line), RolloutEnded):
                scored = self._open.pop(ended.rollout_id, None)
                if scored and ended.state == "trained":
                    self._trained[ended.step].append(scored)
        found = self._trained[step]
        for past in [known for known in self._trained if known <= step]:
            del self._trained[past]
        return sorted(found, key=lambda entry: (entry.score.reward or 0.0, entry.document.rollout_id))

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.jsonl"))

    def _new_lines(self, path: Path) -> Iterator[bytes]:
        """The complete lines that were appended since the last call."""
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read[path] = self._read.get(path, 0) + len(line)
                yield line


def spread(documents: list[Scored], count: int) -> list[Scored]:
    """`count` of them at equal distances, with the first and the last; all if there are no more."""
    if len(documents) <= count:
        return documents
    last = len(documents) - 1
    return [documents[round(number * last / (count - 1))] for number in range(count)]
