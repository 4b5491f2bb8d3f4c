"""Write one document outside of training: read tags from the author's stream, post them, await the images.

Invariants:
- A request is posted as soon as its tag closes, while the author continues.
- A failed tool is part of the document. A failed author raises, and then neither its work nor a request is
  left open.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from evaluation.authors.author import Author, Finish
from policy.document import Document, Part, Task
from policy.grammar.tags import TagReader
from policy.rollout.tooling import Tooling
from workers.client.client import QueueClient
from workers.errors import Cause, InfrastructureFault
from workers.settings import ToolSettings
from workers.storage.blobs import BlobStore


async def write_document(
    author: Author,
    task: Task,
    *,
    client: QueueClient,
    blobs: BlobStore,
    document_id: str,
    tools: ToolSettings,
    timeout_s: float,
    seed: int = 0,
) -> Document:
    """The finished document, with the outcome of every image.

    `timeout_s`: from now to the last image. The document's `extra` has `author` (the model's own name),
    `seed`, `written_s` (seconds to the last word) and `seconds` (to the last image). Raises what
    `Author.write` raises, and `InfrastructureFault(TIMEOUT)`.
    """
    tooling = Tooling(client, rollout_id=document_id, inputs=task.inputs, seed=seed, tools=tools)
    started = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s) as limit:
            images = [await asyncio.to_thread(blobs.get, ref) for ref in task.inputs]
            parts, finish = await _write(author, task, images, seed, tooling)
            written_s = time.monotonic() - started
            finished = await tooling.finish(parts)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise InfrastructureFault(
            Cause.TIMEOUT, f"the document was not finished in {timeout_s:.0f} s"
        ) from error
    finally:
        await tooling.close()
    return Document(
        rollout_id=document_id,
        task=task,
        parts=finished,
        truncated=finish.truncated,
        extra={
            "author": finish.model,
            "seed": seed,
            "written_s": round(written_s, 3),
            "seconds": round(time.monotonic() - started, 3),
        },
    )


async def _write(
    author: Author, task: Task, images: list[bytes], seed: int, tooling: Tooling
) -> tuple[list[Part], Finish]:
    tags, finish = TagReader(len(task.inputs)), Finish(model="")
    parts: list[Part] = []

    async with aclosing(author.write(task, images, seed)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Finish):
                finish = piece
            else:
                parts += tooling.take(tags.feed(piece))
    parts += tooling.take(tags.close())
    return parts, finish
