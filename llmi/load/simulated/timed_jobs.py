"""Jobs with drawn service times: tools return a picture of noise, judges judge by rules.

Loaded by workers of `llmi.load.simulated.timed_app` only. Invariants: the k-th job of a queue takes the k-th
draw, whichever variant posted it; a job computes first and sleeps for the rest, so that it holds its slot as
long as a service would, without using a processor.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

import redis

from llmi.load.simulated.noise import noise_png
from llmi.load.simulated.services import SERVICES_ENV, ServiceSettings
from rewards.judges import IMAGE_KIND, TEXT_KIND, rules
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from workers.celery_app.app import app
from workers.celery_app.execution import register
from workers.jobs import JobContext, job
from workers.messages import CodePayload, DiffusionPayload, EditPayload, SearchPayload, Success
from workers.redis_client import SCAN_TIMEOUT_S, connect_redis
from workers.settings import QueueSettings, section

DRAWS = "llmi:bench:draws"


@functools.cache
def _services() -> ServiceSettings:
    return ServiceSettings.model_validate_json(os.environ[SERVICES_ENV])


@functools.cache
def _redis() -> redis.Redis:
    return connect_redis(section("queue", QueueSettings).url, SCAN_TIMEOUT_S)


def _draws(kind: str) -> Callable[[Any, JobContext], Success]:
    def make(payload: Any, ctx: JobContext) -> Success:
        # Another request gives another picture: the reward does not count repeats.
        picture = noise_png(f"{kind}:{payload.model_dump_json()}")
        return Success(images=(ctx.blobs.put(picture),), source={"provider": "timed"})

    return make


def _timed(kind: str, payload: type, make: Callable[[Any, JobContext], Success]) -> None:
    @job(kind, payload)
    def call(payload: Any, ctx: JobContext) -> Success:
        began = time.monotonic()
        number: Any = _redis().hincrby(DRAWS, kind, 1)
        lasts_s = _services().draw(kind, number)
        made = make(payload, ctx)
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
