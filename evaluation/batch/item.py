"""One item of a batch: write the document, judge it, store the result in the batch.

Invariants:
- The result is stored before the item's message is acknowledged. After a crash the next worker resumes: a
  stored document is not written again, and an existing verdict is not requested again.
- A document with an infrastructure failure is neither stored nor judged.
- A temporary infrastructure failure is retried a few times within the item's time. Then the document is
  missing, with its cause. What counts 0 by the evaluated model's fault is not retried.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass

import fsspec
import tenacity

from evaluation.batch.authoring import write_document
from evaluation.batch.batch import Batch, Manifest
from evaluation.batch.judging import TEMPORARY, Budget, Judging
from evaluation.batch.resources import Resources, resources
from evaluation.batch.results import ItemResult, unwritten
from evaluation.benchmark import Item
from evaluation.payloads import EVALUATE_KIND, EvaluatePayload
from policy.document import Document
from rewards.facts import masking
from workers import event_loop
from workers.errors import Cause, ConfigError, InfrastructureFault, JobError, ModelFault
from workers.jobs import JobContext
from workers.messages import Failure, Success
from workers.queues import QUEUES
from workers.settings import ToolSettings, section
from workers.storage.blobs import BlobStore

GRACE_S = 10.0  # beyond the deadline, for storing the result


def run(payload: EvaluatePayload, ctx: JobContext) -> Success:
    """Evaluate the item. Raises `JobError` when infrastructure left no document; the batch has that too."""
    batch = Batch(payload.batch)
    manifest = _manifest(batch, payload, ctx)
    deadline = min(ctx.deadline, time.time() + QUEUES[EVALUATE_KIND].limit_s)
    item = manifest.item(payload.item_id)
    work = ItemWork(batch, manifest, item, payload.round, ctx.blobs, resources(), Budget(deadline))
    result = event_loop.run(work.evaluate(), deadline + GRACE_S, ctx.cancelled)
    if result.failure is not None and not result.unwritten:
        raise JobError(result.failure.cause, result.failure.detail, provider=result.failure.provider)
    return Success(source={"judged": len(result.points), "of": len(result.verdicts) or 1})


def _manifest(batch: Batch, payload: EvaluatePayload, ctx: JobContext) -> Manifest:
    """The batch's manifest. Raises `InfrastructureFault` when this worker cannot work on it."""
    try:
        manifest = batch.manifest()
    except ConfigError as error:
        raise InfrastructureFault(Cause.BAD_MESSAGE, f"on this worker: {error}") from error
    if manifest.batch_id != payload.batch_id:
        raise InfrastructureFault(Cause.BAD_MESSAGE, f"{batch.url} is now another evaluation")
    own, wanted = _place(ctx.blobs.url), _place(manifest.blobs.url)
    if own != wanted:
        raise InfrastructureFault(
            Cause.BAD_MESSAGE,
            f"this worker stores images in {own} and the evaluation in {wanted}; start the worker with the "
            "evaluation's configuration",
        )
    return manifest


def _place(url: str) -> str:
    return str(fsspec.core.url_to_fs(url)[1]).rstrip("/")


@dataclass(frozen=True)
class ItemWork:
    """One round of one item."""

    batch: Batch
    manifest: Manifest
    item: Item
    round: int
    blobs: BlobStore
    shared: Resources
    budget: Budget

    async def evaluate(self) -> ItemResult:
        """The item's result, stored in the batch."""
        earlier = await asyncio.to_thread(self.batch.result, self.item.item_id)
        if earlier is not None and earlier.round >= self.round:
            return earlier  # complete; only its message was not acknowledged
        document = await asyncio.to_thread(self.batch.document, self.item.item_id)
        resumed = document is not None
        try:
            document = document or await self._write()
        except ModelFault as fault:
            result = unwritten(self.item.item_id, self.round, Failure.of(fault), self.item.criteria)
        except JobError as fault:
            result = ItemResult(item_id=self.item.item_id, round=self.round, failure=Failure.of(fault))
        else:
            if earlier is not None and earlier.document_id != document.rollout_id:
                earlier = None
            judging = Judging(self.manifest, self.item, self.round, document, self.shared, self.budget)
            result = await judging.result(earlier, resumed)
        result = result.model_copy(update={"finished": time.time()})
        await asyncio.to_thread(self.batch.save_result, result)
        return result

    async def _write(self) -> Document:
        document: Document = await self.budget.retrying(
            retry=tenacity.retry_if_exception(_temporary), reraise=True
        )(self._write_once)
        return await asyncio.to_thread(self.batch.save_document, self.item.item_id, document)

    async def _write_once(self) -> Document:
        """Write the document. Each try has an id of its own, so that it does not get images of another."""
        settings = self.manifest.author
        try:
            document = await write_document(
                self.shared.author(settings),
                self.item.task,
                client=self.shared.client,
                blobs=self.blobs,
                document_id=f"{self.manifest.batch_id}-{self.item.item_id}-{uuid.uuid4().hex[:8]}",
                tools=section("tools", ToolSettings),
                timeout_s=min(self.budget.left_s, settings.timeout_s),
            )
        except ConfigError as error:
            raise InfrastructureFault(Cause.INTERNAL, f"author: {error}", provider="author") from error
        if failures := masking(document):
            raise InfrastructureFault(
                failures[0].cause,
                f"{len(failures)} of {len(document.images)} images failed, the first: {failures[0].detail}",
                provider=failures[0].provider,
            )
        return document


def _temporary(error: BaseException) -> bool:
    return isinstance(error, InfrastructureFault) and error.cause in TEMPORARY
