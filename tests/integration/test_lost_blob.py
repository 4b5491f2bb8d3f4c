"""A picture that the store loses under a document is made again by its own tool, and judged. Real workers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import StartWorker

from policy.document import Task
from policy.ledger.reader import read_ledger
from policy.ledger.writer import LedgerWriter
from policy.rollout.result import Segment
from policy.rollout.rollout import Limits, Rollout
from policy.scoring import Draft, Score
from rewards.scorer import QueueScorer
from rewards.settings import JudgeSettings, RewardSettings
from workers.client.client import QueueClient
from workers.errors import Cause
from workers.messages import Failure
from workers.settings import QueueSettings
from workers.storage.blobs import BlobStore

CHART = "plt.plot([1, 2, 3])"
TEXT = (
    "Three numbers rise. "
    f"<imgen>{{'source': 'code', 'description': 'numbers', 'params': {{'code': '{CHART}'}}}}</imgen> Seen."
)
END = 256


async def writes(ids: list[int], left: int, number: int) -> Segment:
    """The whole text at once, a token for each byte."""
    return Segment([*TEXT.encode(), END], [0.0] * (len(TEXT) + 1))


def decode(ids: list[int]) -> str:
    return bytes(token for token in ids if token != END).decode()


@dataclass
class Harmed:
    """A scorer that flips a bit of the picture before its judge sees it."""

    scorer: QueueScorer
    blobs: BlobStore
    flipped: list[Path] = field(default_factory=list)

    async def score(self, draft: Draft) -> Score:
        document = await draft.finished
        blob = document.images[0].blob
        assert blob is not None, document.images[0].failure
        path = Path(self.blobs.location(blob.sha256))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        self.flipped.append(path)
        return await self.scorer.score(draft)


@pytest.fixture
def blobs(config_file: Path) -> BlobStore:
    return BlobStore(json.loads(config_file.read_text())["blobs"]["url"])


async def test_a_flipped_bit_is_found_and_the_picture_made_again(
    worker: StartWorker, queue_settings: QueueSettings, blobs: BlobStore, tmp_path: Path
) -> None:
    worker(["code"])
    worker(["judge_text", "judge_image"], 2)
    ledger = LedgerWriter(tmp_path, "rollout")
    scorer = Harmed(QueueScorer(RewardSettings(), JudgeSettings()), blobs)
    ledger.started("u_0", Task(question="Rising numbers"))
    async with QueueClient(
        queue_settings, on_posted=ledger.posted, on_outcome=ledger.request_ended
    ) as client:
        rollout = Rollout(
            rollout_id="u_0",
            task=Task(question="Rising numbers"),
            generate=writes,
            decode=decode,
            ends=frozenset({END}),
            client=client,
            scorer=scorer,
            ledger=ledger,
            limits=Limits(1000, 60.0),
        )
        written = await rollout.run([1])
    ledger.close()
    assert written.reward is not None, written.score
    assert len(scorer.flipped) == 1
    blob = written.document.images[0].blob
    assert blobs.get(blob)
    seen = read_ledger(tmp_path)
    assert seen.violations == []
    found = seen.requests["u_0.judge_image"].outcome.result
    assert isinstance(found, Failure)
    assert (found.cause, found.blob) == (Cause.BLOB_MISSING, scorer.flipped[0].name)
    assert {"u_0-0", "u_0-0.1", "u_0.judge_image.1"} <= set(seen.requests)
