"""The scorer over real queues: a draft becomes a score by way of Redis and a Celery worker."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
from conftest import StartWorker
from PIL import Image

from policy.document import Document, ImagePart, Tag, Task, TextPart
from policy.scoring import Draft, Score
from rewards.scorer import QueueScorer
from rewards.settings import JudgeSettings, RewardSettings
from workers.client.client import QueueClient
from workers.errors import Cause
from workers.messages import BlobRef, Outcome, Success
from workers.settings import QueueSettings
from workers.storage.blobs import BlobStore

PROSE = "The grey heron hunts among the reeds at dawn and carries each fish back to its nest in old trees.\n"


def heron(blob: BlobRef) -> Document:
    tag = Tag(source="diffusion", description="grey heron in reeds", params={"prompt": "grey heron in reeds"})
    made = Outcome(request_id="r", kind="diffusion", result=Success(images=(blob,)))
    image = ImagePart(index=0, tag=tag, raw="", outcome=made)
    task = Task(question="The grey heron: nest, reeds, fish.", image_num=1, tools=("diffusion",))
    return Document(rollout_id="r", task=task, parts=(TextPart(text=PROSE), image))


async def score(document: Document, settings: QueueSettings, judges: JudgeSettings) -> Score:
    finished: asyncio.Future[Document] = asyncio.get_running_loop().create_future()
    finished.set_result(document)
    async with asyncio.timeout(60), QueueClient(settings) as client:
        return await QueueScorer(RewardSettings(), judges).score(Draft(document, finished, client))


@pytest.fixture
def picture(config_file: Path) -> BlobRef:
    """A gradient in the store that the workers read."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, "PNG")
    return BlobStore(json.loads(config_file.read_text())["blobs"]["url"]).put(buffer.getvalue())


async def test_a_draft_becomes_a_score(
    worker: StartWorker, queue_settings: QueueSettings, picture: BlobRef
) -> None:
    worker(["judge_text", "judge_image"], 4)
    result = await score(heron(picture), queue_settings, JudgeSettings())
    assert result.breakdown["verdicts"] == {
        "text": {"text": 5, "image_tags": 5},
        "image": {"image_quality": 4, "task_relevance": 5, "text_image_relevance": 5},
    }
    # Quality 4 of 5 costs a twelfth of M's share: (.2 + .3 * 11/12 + .5 + .2) / 1.2
    assert result.reward == pytest.approx((0.9 + 0.3 * 11 / 12) / 1.2)


async def test_a_picture_lost_from_the_store_masks(
    worker: StartWorker, queue_settings: QueueSettings
) -> None:
    worker(["judge_text", "judge_image"], 4)
    lost = BlobRef(sha256="0" * 64, media_type="image/png", size=9, width=64, height=64)
    result = await score(heron(lost), queue_settings, JudgeSettings())
    assert result.reward is None
    assert {failure.cause for failure in result.masked_by} == {Cause.BLOB_MISSING}


async def test_judges_without_workers_mask_at_their_deadline(
    queue_settings: QueueSettings, picture: BlobRef
) -> None:
    hasty = JudgeSettings.model_validate({"text": {"timeout_s": 0.5}, "image": {"timeout_s": 0.5}})
    result = await score(heron(picture), queue_settings.model_copy(update={"wait_s": 0.5}), hasty)
    assert result.reward is None
    assert {failure.cause for failure in result.masked_by} == {Cause.TIMEOUT}
