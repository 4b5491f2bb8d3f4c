"""The tool requests of one document. Each is posted when its tag closes.

A tag that changes an image is posted when that image is there; a code tag when the document's budget
(`policy.rollout.code_budget`) covers it.

Invariants:
- At most `tools.max_requests` tags are posted; further ones are invalid.
- Every valid tag ends in exactly one outcome.
- A job has its whole time limit from its start, however long its request waits.
- A tag waits only for the image that it depends on, and is not posted when that image failed.
- A lost image is made again once, by a new request. The new image takes its place in the document.
- `close` cancels what is open and leaves no task behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ValidationError

from policy.document import ImagePart, InvalidPart, Part, Tag
from policy.rollout.code_budget import CodeBudget
from policy.tools import tools
from workers.client.handle import RequestClient, cancel_open
from workers.errors import Cause, Fault, InfrastructureFault
from workers.messages import BlobRef, Failure, Outcome, Request, Success, raised
from workers.settings import ToolSettings

logger = logging.getLogger(__name__)


class Tooling:
    """For one rollout, on one event loop. `seed`: the same tag and seed give the same image."""

    def __init__(
        self,
        client: RequestClient,
        *,
        rollout_id: str,
        inputs: Sequence[BlobRef],
        seed: int,
        tools: ToolSettings,
    ):
        self._client = client
        self._tools = tools
        self._budget = CodeBudget(tools.code.budget_s, tools.code.wall_s)
        self._rollout_id = rollout_id
        self._inputs = tuple(inputs)
        self._seed = seed
        self._parts: dict[int, ImagePart] = {}
        self._tasks: dict[int, asyncio.Task[Outcome]] = {}
        self._remade: dict[int, asyncio.Task[Outcome]] = {}  # lost images, made again
        self._attempts: Counter[int] = Counter()
        self._open: set[str] = set()

    def request_id(self, index: int) -> str:
        """The id of the first request of the tag with this index."""
        return f"{self._rollout_id}-{index}"

    def take(self, parts: Sequence[Part]) -> list[Part]:
        """Start the requests of complete parts. Returns the parts of the document: a tag beyond the limit
        becomes an invalid one.
        """
        return [self._start(part) if isinstance(part, ImagePart) else part for part in parts]

    def _start(self, part: ImagePart) -> Part:
        """Post the tag's request in a task of its own."""
        if len(self._parts) >= self._tools.max_requests:
            reason = f"too many tags: a document may have {self._tools.max_requests} (tools.max_requests)"
            return InvalidPart(index=part.index, raw=part.raw, reason=reason, too_many=True)
        self._parts[part.index] = part
        self._tasks[part.index] = asyncio.create_task(self._run(part))
        return part

    async def finish(self, parts: Sequence[Part]) -> tuple[Part, ...]:
        """The same parts with the outcome of every image. Each arrives by its request's deadline."""
        for part in parts:
            if isinstance(part, ImagePart):  # all, before any is read: an edit may find its image lost
                await asyncio.shield(self._tasks[part.index])
        done: list[Part] = []
        for part in parts:
            if isinstance(part, ImagePart):
                outcome = await self._latest(part.index)
                done.append(part.model_copy(update={"request_id": outcome.request_id, "outcome": outcome}))
            else:
                done.append(part)
        return tuple(done)

    def unfinished(self) -> list[str]:
        """The tools of the tags without an outcome."""
        open_ = [
            index for tasks in (self._tasks, self._remade) for index, task in tasks.items() if not task.done()
        ]
        return [self._parts[index].tag.source for index in open_]

    async def remake(self, sha256: str) -> bool:
        """Make the image of this document again that has the lost or damaged blob `sha256`.

        Returns whether there is an image again, perhaps under another name. False for an input of the task:
        it is stored again when its row of the dataset is read.
        """
        made = (i for i, task in self._tasks.items() if task.done() and _image(task.result()) == sha256)
        index = next(made, None)
        if index is None:
            return False
        if index not in self._remade:
            logger.warning("blob %s is lost; making image %d of %s again", sha256, index, self._rollout_id)
            self._remade[index] = asyncio.create_task(self._run(self._parts[index]))
        return (await asyncio.shield(self._remade[index])).ok

    async def close(self) -> None:
        """Cancel what is open. When the queue does not answer in time, requests stay until their deadline."""
        tasks = [*self._tasks.values(), *self._remade.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await cancel_open(self._client, self._open, self._rollout_id)

    async def _run(self, part: ImagePart) -> Outcome:
        """Post until there is an outcome: twice when the image to change was lost and could be made again."""
        outcome = await self._post(part)
        lost = outcome.result.blob if isinstance(outcome.result, Failure) else ""
        if tools()[part.tag.source].image_param and lost and await self.remake(lost):
            outcome = await self._post(part)
        return outcome

    async def _post(self, part: ImagePart) -> Outcome:
        """Post once and wait. Every request has its own id, so that it cannot get the outcome of another."""
        tag, index = part.tag, part.index
        attempt = self._attempts[index]
        request_id = self.request_id(index) + (f".{attempt}" if attempt else "")
        self._attempts[index] += 1
        image: BlobRef | None = None
        tool = tools()[tag.source]
        if tool.image_param:
            needed = await self._dependency(int(tag.params[tool.image_param]))
            if isinstance(needed, Failure):
                return _failed(request_id, tag, needed)
            image = needed
        try:
            payload = tool.payload(tag.params, image)
        except ValidationError as error:
            failure = Failure(cause=Cause.BAD_PARAMS, detail=error.errors()[0]["msg"])
            return _failed(request_id, tag, failure)
        if not tool.code_budget or attempt:  # a lost image that is made again uses no budget
            return await self._outcome(tag, payload, request_id)
        async with self._budget.share() as share:
            if not share.granted:
                spent = f"the document's code has used its {self._tools.code.budget_s:g} s"
                failure = Failure(cause=Cause.CODE_BUDGET, detail=f"{spent} (tools.code.budget_s)")
                return _failed(request_id, tag, failure)
            outcome = await self._outcome(tag, payload, request_id)
            share.ran_s = outcome.run_s
            return outcome

    async def _outcome(self, tag: Tag, payload: BaseModel, request_id: str) -> Outcome:
        limit_s, priority = self._tools.limit_s(tag.source), self._client.priority
        request = Request.make(
            tag.source,
            payload,
            timeout_s=self._client.wait_s + limit_s,
            limit_s=limit_s,
            seed=self._seed,
            owner=self._rollout_id,
            request_id=request_id,
            priority=raised(priority) if tools()[tag.source].image_param else priority,
        )
        self._open.add(request.request_id)
        try:
            posted = await self._client.post(request)
            outcome = await posted.outcome()
        except InfrastructureFault as fault:
            outcome = Outcome(request_id=request.request_id, kind=request.kind, result=Failure.of(fault))
        self._open.discard(request.request_id)
        return outcome

    async def _latest(self, index: int) -> Outcome:
        """The tag's outcome, or that of its image made again if it succeeded."""
        outcome = await asyncio.shield(self._tasks[index])
        if index in self._remade:
            again = await asyncio.shield(self._remade[index])
            return again if again.ok else outcome
        return outcome

    async def _dependency(self, index: int) -> BlobRef | Failure:
        """The image to change; inputs are counted first, then every tag."""
        if index < len(self._inputs):
            return self._inputs[index]
        tag = index - len(self._inputs)
        if tag not in self._tasks:
            return Failure(cause=Cause.INPUT_FAILED, detail=f"image {index} is an invalid tag")
        result = (await self._latest(tag)).result
        if isinstance(result, Success) and result.images:
            return result.images[0]
        if isinstance(result, Failure) and result.fault is Fault.MODEL:
            return Failure(cause=Cause.INPUT_FAILED, detail=f"image {index} failed: {result.cause}")
        why = result.cause if isinstance(result, Failure) else "no image in its outcome"
        return Failure(cause=Cause.INPUT_UNAVAILABLE, detail=f"image {index} failed: {why}")


def _failed(request_id: str, tag: Tag, failure: Failure) -> Outcome:
    return Outcome(request_id=request_id, kind=tag.source, result=failure)


def _image(outcome: Outcome) -> str:
    """SHA-256 of the outcome's image, "" without one."""
    result = outcome.result
    return result.images[0].sha256 if isinstance(result, Success) and result.images else ""
