"""Judge criteria with a model that reads images, behind any OpenAI-compatible chat endpoint.

Invariant: what the criteria of one document share (instructions, task, given images, document) stands before
the criterion, so that a server with prefix caching computes it once.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

from evaluation.payloads import RUBRIC_KIND, RubricPayload
from evaluation.rubric.verdict import CriterionVerdict
from evaluation.settings import RubricSettings
from rewards.judges.fence import MARKS, text
from rewards.judges.openai import shorter
from rewards.judges.pictures import data_uri
from rewards.judges.probe import context, refusals_as_infrastructure, sample_document
from rewards.judges.prompts import Chat, seen
from rewards.judges.served.structured import answer
from workers.jobs import JobContext
from workers.messages import BlobRef, Success
from workers.storage.blobs import BlobStore

NAME = "rubric judge"
INSTRUCTIONS = f"""\
You judge one criterion on an illustrated document that a model wrote for a user. First you see the task, \
with any pictures the user gave (marks "given picture"), then the document as its reader sees it: the text, \
and the pictures in their places (marks "picture"). A mark "no picture" stands where the author wanted a \
picture and none came, "broken tag" where one could not be read. To the reader nothing is there. Last comes \
the criterion.

{MARKS}
Judge that criterion alone, whatever else is good or bad about the document:
2: it is met in full.
1: it is met in part, or with a clear flaw.
0: it is not met, or what it asks about is absent.

Judge by what is really there: look at the pictures themselves, not only at what they are meant to show. \
Between two scores take the lower one.
Answer with one JSON object and nothing else, the reason first: \
{{"reason": "<one or two sentences that name what you saw>", "score": <0, 1 or 2>}}
"""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "score": {"type": "integer", "enum": [0, 1, 2]}},
    "required": ["reason", "score"],
    "additionalProperties": False,
}


def judge(payload: RubricPayload, settings: RubricSettings, ctx: JobContext) -> Success:
    """Get the model's verdict. Raises as `structured.answer`."""

    def chat(shown: RubricPayload, pixels: int, most_images: int) -> Chat:
        return rubric_chat(shown, lambda ref: data_uri(ctx.blobs, ref, pixels), most_images)

    pixels, most_images = settings.max_image_pixels, settings.max_images
    whole = chat(payload, pixels, most_images)
    smaller = shorter(payload, chat, pixels, most_images)
    answered = answer(settings, settings.url, whole, SCHEMA, "CriterionVerdict", ctx, NAME, smaller)
    return CriterionVerdict.read(answered.data, provider=NAME).success(answered.model)


def rubric_chat(payload: RubricPayload, show: Callable[[BlobRef], str], max_images: int) -> Chat:
    """The prompt. `show` and `max_images` as in `prompts.seen`."""
    content = seen(payload.question, payload.inputs, payload.parts, show, max_images)
    content.append(text(f"# The criterion\n{payload.criterion}\n\n# Your verdict"))
    return [
        {"role": "system", "content": [text(INSTRUCTIONS)]},
        {"role": "user", "content": content},
    ]


def probe(settings: RubricSettings, timeout_s: float) -> float:
    """Seconds that a verdict took. Raises `InfrastructureFault` when there was none."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="llmi-probe-") as folder, refusals_as_infrastructure():
        blobs = BlobStore(folder)
        payload = RubricPayload.of(sample_document(blobs), "It shows an orange square.", settings)
        judge(payload, settings, context(RUBRIC_KIND, payload, blobs, timeout_s))
    return time.monotonic() - started
