"""The resume state of a rollout, in a file beside its text (`policy.resume.completions`).

Invariants:
- a file is saved completely or not at all;
- only the process that continues the rollout reads it, and only then, so that no process holds the state of
  all;
- it is removed with the texts of its group.
"""

from __future__ import annotations

from pathlib import Path

from policy.document import Document
from policy.resume.completions import file_of
from policy.scoring import Score
from workers.messages import Message, Outcome
from workers.storage.atomic import save

SUFFIX = ".continued.json"


class ResumeState(Message):
    """The state of a rollout with a complete text.

    `cut`: the checkpoint steps of all resumes since the text was written
    (see `policy.resume.plan.effective_versions`). `outcomes`: of its requests. With `document` and `score`
    set, nothing is left to do.
    """

    cut: tuple[int, ...]
    outcomes: tuple[Outcome, ...] = ()
    document: Document | None = None
    score: Score | None = None

    @classmethod
    def load(cls, run: Path, rollout_id: str) -> ResumeState:
        """Raises `FileNotFoundError`."""
        return cls.model_validate_json(file_of(run, rollout_id, SUFFIX).read_bytes())

    def save(self, run: Path, rollout_id: str) -> None:
        save(file_of(run, rollout_id, SUFFIX), self.model_dump_json())
