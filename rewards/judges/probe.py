"""Request one small verdict from a judge and check that it parses.

Invariant: same prompt, schema and client as in training. Nothing is queued or stored.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from policy.document import Document, ImagePart, Tag, Task, TextPart
from rewards.judges import IMAGE_KIND, TEXT_KIND
from rewards.judges.openai import verdict_of
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.judges.pictures import data_uri
from rewards.judges.prompts import image_chat, text_chat
from rewards.settings import JudgeEndpoint
from rewards.verdicts import ImageVerdict, TextVerdict
from workers.errors import Cause, InfrastructureFault, ModelFault
from workers.jobs import JobContext
from workers.messages import Message, Outcome, Request, Success
from workers.storage.blobs import BlobStore

SIDE = 56


def probe(kind: Literal["text", "image"], judge: JudgeEndpoint, url: str, timeout_s: float) -> float:
    """Seconds that a verdict took. Raises `InfrastructureFault` when there was none."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="llmi-probe-") as folder, refusals_as_infrastructure():
        blobs = BlobStore(folder)
        document = sample_document(blobs)
        if kind == "text":
            text = JudgeTextPayload.of(document)
            ctx = context(TEXT_KIND, text, blobs, timeout_s)
            verdict_of(judge, url, text_chat(text), TextVerdict, ctx, "text judge")
        else:
            shown = JudgeImagePayload.of(document)
            ctx = context(IMAGE_KIND, shown, blobs, timeout_s)
            chat = image_chat(
                shown, lambda ref: data_uri(blobs, ref, judge.max_image_pixels), judge.max_images
            )
            verdict_of(judge, url, chat, ImageVerdict, ctx, "image judge")
    return time.monotonic() - started


@contextmanager
def refusals_as_infrastructure() -> Iterator[None]:
    """Turn a refusal of the probe's own document into an `InfrastructureFault`."""
    try:
        yield
    except ModelFault as fault:
        raise InfrastructureFault(Cause.BAD_ANSWER, fault.detail, provider=fault.provider) from fault


def context(kind: str, payload: Message, blobs: BlobStore, timeout_s: float) -> JobContext:
    """The context that a worker would give to the job."""
    return JobContext(Request.make(kind, payload, timeout_s=timeout_s), blobs)


def sample_document(blobs: BlobStore) -> Document:
    """A sentence about an orange square, and its picture."""
    from PIL import Image

    encoded = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "orange").save(encoded, "PNG")
    tag = Tag(source="diffusion", description="An orange square", params={"prompt": "an orange square"})
    picture = Success(images=(blobs.put(encoded.getvalue()),))
    outcome = Outcome(request_id="probe", kind="diffusion", result=picture)
    return Document(
        rollout_id="probe",
        task=Task(question="Describe an orange square and show it.", image_num=1),
        parts=(
            TextPart(text="An orange square has four equal sides."),
            ImagePart(index=0, tag=tag, raw="", outcome=outcome),
        ),
    )
