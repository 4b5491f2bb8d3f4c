"""The tool requests of one document: each posted the moment its tag closes, an edit when its one image is in.

Invariants: every tag ends in exactly one outcome; an edit waits for the image it depends on and for nothing
else, and is not posted when that image failed; `close` cancels what is open and leaves no task behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from pydantic import BaseModel, ValidationError

from policy.document import ImagePart, Part, Tag
from workers.client import QueueClient
from workers.errors import Cause, Fault, InfrastructureFault
from workers.messages import (
    BlobRef,
    CodePayload,
    DiffusionPayload,
    EditPayload,
    Failure,
    Outcome,
    Request,
    SearchPayload,
    Success,
)
from workers.queues import QUEUES

logger = logging.getLogger(__name__)
CANCEL_S = 5.0
_PAYLOADS: dict[str, type[BaseModel]] = {
    "search": SearchPayload,
    "diffusion": DiffusionPayload,
    "code": CodePayload,
}


class Tooling:
    """Lives on one event loop, for one rollout. `seed` makes the same tag give the same image."""

    def __init__(self, client: QueueClient, *, rollout_id: str, inputs: Sequence[BlobRef], seed: int):
        self._client = client
        self._rollout_id = rollout_id
        self._inputs = tuple(inputs)
        self._seed = seed
        self._tasks: dict[int, asyncio.Task[Outcome]] = {}
        self._open: set[str] = set()

    def request_id(self, index: int) -> str:
        """The id under which the tag of this index is posted."""
        return f"{self._rollout_id}-{index}"

    def start(self, part: ImagePart) -> None:
        """Post the tag's request, or wait for its dependency, in a task of its own."""
        self._tasks[part.index] = asyncio.create_task(self._run(part))

    async def finish(self, parts: Sequence[Part]) -> tuple[Part, ...]:
        """The same parts with every image's outcome in; each comes by its request's deadline."""
        done: list[Part] = []
        for part in parts:
            if isinstance(part, ImagePart):
                outcome = await asyncio.shield(self._tasks[part.index])
                update = {"request_id": self.request_id(part.index), "outcome": outcome}
                done.append(part.model_copy(update=update))
            else:
                done.append(part)
        return tuple(done)

    async def close(self) -> None:
        """Cancel what is open. A queue that does not answer in time keeps requests until their deadline."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if not self._open:
            return
        try:
            async with asyncio.timeout(CANCEL_S):
                await asyncio.gather(*(self._client.cancel(request_id) for request_id in self._open))
        except (TimeoutError, InfrastructureFault) as error:
            logger.warning("%d requests of %s not cancelled: %s", len(self._open), self._rollout_id, error)

    async def _run(self, part: ImagePart) -> Outcome:
        tag, index = part.tag, part.index
        image: BlobRef | None = None
        if tag.source == "edit":
            needed = await self._dependency(int(tag.params["img_index"]))
            if isinstance(needed, Failure):
                return self._failed(index, tag, needed)
            image = needed
        try:
            payload = _payload(tag, image)
        except ValidationError as error:
            return self._failed(index, tag, Failure(cause=Cause.BAD_PARAMS, detail=error.errors()[0]["msg"]))
        request = Request.make(
            tag.source,
            payload,
            timeout_s=QUEUES[tag.source].timeout_s,
            seed=self._seed,
            owner=self._rollout_id,
            request_id=self.request_id(index),
        )
        self._open.add(request.request_id)
        try:
            posted = await self._client.post(request)
            outcome = await posted.outcome()
        except InfrastructureFault as fault:
            outcome = Outcome(request_id=request.request_id, kind=request.kind, result=Failure.of(fault))
        self._open.discard(request.request_id)
        return outcome

    async def _dependency(self, index: int) -> BlobRef | Failure:
        """The image an edit changes; inputs are counted first, then every tag."""
        if index < len(self._inputs):
            return self._inputs[index]
        task = self._tasks.get(index - len(self._inputs))
        if task is None:
            return Failure(cause=Cause.INPUT_FAILED, detail=f"image {index} is an invalid tag")
        result = (await asyncio.shield(task)).result
        if isinstance(result, Success) and result.images:
            return result.images[0]
        if isinstance(result, Failure) and result.fault is Fault.MODEL:
            return Failure(cause=Cause.INPUT_FAILED, detail=f"image {index} failed: {result.cause}")
        why = result.cause if isinstance(result, Failure) else "no image in its outcome"
        return Failure(cause=Cause.INPUT_UNAVAILABLE, detail=f"image {index} failed: {why}")

    def _failed(self, index: int, tag: Tag, failure: Failure) -> Outcome:
        return Outcome(request_id=self.request_id(index), kind=tag.source, result=failure)


def _payload(tag: Tag, image: BlobRef | None) -> BaseModel:
    if tag.source == "edit":
        return EditPayload.model_validate({"prompt": tag.params["prompt"], "image": image})
    return _PAYLOADS[tag.source].model_validate(tag.params)
