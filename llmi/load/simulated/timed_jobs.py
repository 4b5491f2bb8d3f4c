"""Jobs that take as long as drawn: tools give a fixed picture, judges judge by rules.

Loaded by workers of `llmi.load.simulated.timed_app` only. Invariants: the job of a queue that is started as
the k-th takes the k-th draw, whichever arm posted it; a job computes first and sleeps for what is left, so
that it holds its slot for as long as a service would, and no processor.
"""

from __future__ import annotations

import functools
import io
import os
import time
from collections.abc import Callable
from random import Random
from typing import Any

import redis

from llmi.load.overlap.settings import SERVICES_ENV, ServiceSettings
from rewards.judges import IMAGE_KIND, TEXT_KIND, rules
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from workers.celery_app.app import app
from workers.celery_app.execution import register
from workers.jobs import JobContext, job
from workers.messages import CodePayload, DiffusionPayload, EditPayload, SearchPayload, Success
from workers.redis_client import SCAN_TIMEOUT_S, connect_redis
from workers.settings import QueueSettings, section

DRAWS = "llmi:bench:draws"
SIDE = 64  # pixels


@functools.cache
def _services() -> ServiceSettings:
    return ServiceSettings.model_validate_json(os.environ[SERVICES_ENV])


@functools.cache
def _redis() -> redis.Redis:
    return connect_redis(section("queue", QueueSettings).url, SCAN_TIMEOUT_S)


@functools.cache
def picture(kind: str) -> bytes:
    """A PNG with contrast and detail, another for each kind."""
    from PIL import Image

    noise = Random(kind).randbytes(3 * SIDE * SIDE)
    file = io.BytesIO()
    Image.frombytes("RGB", (SIDE, SIDE), noise).save(file, "PNG")
    return file.getvalue()


def _draws(kind: str) -> Callable[[Any, JobContext], Success]:
    def make(_payload: Any, ctx: JobContext) -> Success:
        return Success(images=(ctx.blobs.put(picture(kind)),), source={"provider": "timed"})

    return make


def _timed(kind: str, payload: type, make: Callable[[Any, JobContext], Success]) -> None:
    @job(kind, payload)
    def call(asked: Any, ctx: JobContext) -> Success:
        began = time.monotonic()
        number: Any = _redis().hincrby(DRAWS, kind, 1)
        lasts_s = _services().draw(kind, number)
        made = make(asked, ctx)
        time.sleep(max(0.0, began + lasts_s - time.monotonic()))
        return made


TOOLS: dict[str, type] = {
    "search": SearchPayload,
    "diffusion": DiffusionPayload,
    "edit": EditPayload,
    "code": CodePayload,
}
for _kind, _payload in TOOLS.items():
    _timed(_kind, _payload, _draws(_kind))
_timed(TEXT_KIND, JudgeTextPayload, lambda payload, _ctx: rules.judge_text(payload))
_timed(IMAGE_KIND, JudgeImagePayload, rules.judge_image)


for _kind in (*TOOLS, TEXT_KIND, IMAGE_KIND):
    register(app, _kind)
