"""One document outside of training: parsed from a stream, complete or not at all."""

from __future__ import annotations

import asyncio
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evaluation.authors.author import Finish
from evaluation.batch.authoring import write_document
from policy.document import Document, ImagePart, Task
from policy.grammar.tags import read
from workers.errors import Cause, InfrastructureFault
from workers.messages import NORMAL, Failure, Outcome, Success
from workers.settings import ToolSettings
from workers.storage.blobs import BlobStore

TEXT = (
    "<think>First <imgen>no</imgen></think># Ferries ⛴\n"
    "<imgen>{'source': 'search', 'description': 'a ferry', 'params': {'query': 'ferry'}}</imgen>\n"
    "Then.<imgen>{'source': 'edit', 'description': 'at night', 'params': {'img_index': 0, 'prompt': 'n'}}"
    "</imgen><imgen>{broken</imgen><imgen>{'source': 'code'"
)


def blob_of(blobs: BlobStore):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "teal").save(buffer, "PNG")
    return blobs.put(buffer.getvalue())


class Queue:
    """Answers every request at once with `result`; with None, never."""

    wait_s = 60.0
    priority = NORMAL

    def __init__(self, result: Success | Failure | None):
        self.result = result
        self.posted: list[str] = []
        self.cancelled: list[str] = []
        self.posted_event = asyncio.Event()

    async def post(self, request):
        self.posted.append(request.request_id)
        self.posted_event.set()
        result = self.result

        class Posted:
            @staticmethod
            async def outcome() -> Outcome:
                if result is None:
                    await asyncio.Event().wait()
                return Outcome(request_id=request.request_id, kind=request.kind, result=result)

        return Posted()

    async def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)


class Script:
    """An author that writes `pieces`; an exception among them is raised, an event waited for."""

    def __init__(self, *pieces: object):
        self.pieces = pieces
        self.calls: list[tuple] = []
        self.closed = False

    async def write(self, task, images, seed):
        self.calls.append((task, images, seed))
        try:
            for piece in self.pieces:
                if isinstance(piece, Exception):
                    raise piece
                if isinstance(piece, asyncio.Event):
                    await piece.wait()
                else:
                    yield piece
        finally:
            self.closed = True


@pytest.fixture(scope="module")
def blobs(tmp_path_factory) -> BlobStore:
    return BlobStore(str(tmp_path_factory.mktemp("blobs")))


def write(author: Script, queue: Queue, blobs: BlobStore, timeout_s: float = 20.0, inputs=(), most=11):
    task = Task(question="Write about ferries.", inputs=tuple(inputs))
    return write_document(
        author,
        task,
        client=queue,
        blobs=blobs,
        document_id="d",
        tools=ToolSettings(max_requests=most),
        timeout_s=timeout_s,
        seed=4,
    )


async def cut(blobs: BlobStore, edges: list[int]) -> Document:
    pieces = [TEXT[a:b] for a, b in zip([0, *edges], [*edges, len(TEXT)], strict=True)]
    return await write(Script(*pieces, Finish("served")), Queue(Success(images=(blob_of(blobs),))), blobs)


@given(st.sets(st.integers(0, len(TEXT)), max_size=10).map(sorted))
def test_any_cutting_gives_the_same_document(blobs, edges):
    document = asyncio.run(cut(blobs, edges))
    nothing = {"request_id": "", "outcome": None}
    bare = tuple(
        part.model_copy(update=nothing) if isinstance(part, ImagePart) else part for part in document.parts
    )
    assert bare == read(TEXT, inputs=0)
    assert all(part.blob for part in document.images)


async def test_the_document_says_who_wrote_it_and_how_long_it_took(blobs):
    document = await write(Script("Hi", Finish("served", truncated=True)), Queue(None), blobs)
    assert document.truncated
    assert document.rollout_id == "d"
    assert (document.extra["author"], document.extra["seed"]) == ("served", 4)
    assert 0 <= document.extra["written_s"] <= document.extra["seconds"]


async def test_the_author_gets_the_task_s_images_and_the_seed(blobs):
    author, ref = Script("Hi"), blob_of(blobs)
    await write(author, Queue(None), blobs, inputs=[ref])
    [(task, images, seed)] = author.calls
    assert (task.inputs, images, seed) == ((ref,), [blobs.get(ref)], 4)


async def test_a_request_is_posted_while_the_author_writes_on(blobs):
    queue, later = Queue(Success(images=(blob_of(blobs),))), asyncio.Event()
    author = Script(TEXT[: TEXT.index("Then")], later, "The end.")
    writing = asyncio.create_task(write(author, queue, blobs))
    async with asyncio.timeout(5):
        await queue.posted_event.wait()
    assert not writing.done()
    later.set()
    assert (await writing).text.endswith("The end.")


async def test_the_limit_of_requests_holds_outside_of_training(blobs):
    queue = Queue(Success(images=(blob_of(blobs),)))
    document = await write(Script(TEXT, Finish("served")), queue, blobs, most=1)
    assert queue.posted == ["d-0"]
    assert document.invalid[0].reason.startswith("too many tags")


async def test_a_given_image_reaches_the_edit_of_it(blobs):
    """Regression: in the original's evaluation no edit ever got one."""

    class Noting(Queue):
        async def post(self, request):
            asked.append(request.payload)
            return await super().post(request)

    asked, ref = [], blob_of(blobs)
    body = {"source": "edit", "description": "d", "params": {"img_index": 0, "prompt": "at night"}}
    await write(Script(f"<imgen>{body}</imgen>"), Noting(Success(images=(ref,))), blobs, inputs=[ref])
    [payload] = asked
    assert (payload["prompt"], payload["image"]["sha256"]) == ("at night", ref.sha256)


async def test_a_failed_tool_is_part_of_the_document(blobs):
    failure = Failure(cause=Cause.NO_HIT, detail="nothing")
    document = await write(Script(TEXT), Queue(failure), blobs)
    search, edit = document.images
    assert search.failure == failure
    assert edit.failure.cause is Cause.INPUT_FAILED


async def test_an_author_that_fails_leaves_no_document_and_nothing_open(blobs):
    queue = Queue(None)
    broken = InfrastructureFault(Cause.PROVIDER_DOWN, "the connection broke")

    class Breaks(Script):
        async def write(self, task, images, seed):
            yield TEXT[: TEXT.index("Then")]
            await queue.posted_event.wait()
            raise broken

    with pytest.raises(InfrastructureFault) as caught:
        await write(Breaks(), queue, blobs)
    assert caught.value is broken
    assert queue.cancelled == queue.posted == ["d-0"]


@pytest.mark.parametrize("pieces", [(TEXT,), (TEXT, asyncio.Event())], ids=["a tool", "the author"])
async def test_the_deadline_ends_all(blobs, pieces):
    author, queue = Script(*pieces), Queue(None)
    with pytest.raises(InfrastructureFault) as caught:
        await write(author, queue, blobs, timeout_s=0.2)
    assert caught.value.cause is Cause.TIMEOUT
    assert author.closed
    assert queue.cancelled == queue.posted == ["d-0"]


async def test_a_time_out_of_the_author_is_its_own_error(blobs):
    with pytest.raises(TimeoutError, match="of the author"):
        await write(Script("Hi", TimeoutError("of the author")), Queue(None), blobs)


async def test_cancelling_closes_the_author_and_what_is_open(blobs):
    author, queue = Script(TEXT[: TEXT.index("Then")], asyncio.Event()), Queue(None)
    writing = asyncio.create_task(write(author, queue, blobs))
    async with asyncio.timeout(5):
        await queue.posted_event.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert author.closed
    assert queue.cancelled == ["d-0"]
