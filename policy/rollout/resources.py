"""The objects that all rollouts of a process share: queue client, scorer, ledger, metrics, blob store, end
tokens.

Invariant: created once per event loop, at the first rollout; a failed start is retried by the next rollout.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from policy.inflight import InFlightCounter
from policy.ledger.writer import LedgerWriter
from policy.resume.completions import CompletionStore
from policy.resume.plan import ResumePlan
from policy.rollout.freeze_gc import freeze_gc
from policy.scoring import Scorer
from workers.client.client import QueueClient
from workers.messages import Outcome, Request
from workers.metrics.endpoint import announce, serve_process
from workers.metrics.telemetry import ProducerMetrics, producer_metrics
from workers.settings import BlobSettings, MetricsSettings, QueueSettings, ToolSettings, section
from workers.storage.blobs import BlobStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """The shared objects of a process. `ends`: ids of the model's end tokens. `evaluated`: held by each
    document of an evaluation that runs. `tasks`: background tasks.
    """

    client: QueueClient
    scorer: Scorer
    ledger: LedgerWriter
    texts: CompletionStore
    plan: ResumePlan
    blobs: BlobStore
    ends: frozenset[int]
    tools: ToolSettings
    metrics: ProducerMetrics
    in_flight: InFlightCounter
    evaluated: asyncio.Semaphore
    tasks: tuple[asyncio.Task[None], ...]


_starts: dict[asyncio.AbstractEventLoop, asyncio.Task[Resources]] = {}


async def resources(run: Path, scorer: str, model: str, tokenizer: Any, evaluated_at_once: int) -> Resources:
    """The resources of this process.

    `scorer`: the factory of a `policy.scoring.Scorer`, as `package.module:Class.method`. `model`: a path or
    name that transformers can load. `evaluated_at_once`: documents of an evaluation.
    """
    loop = asyncio.get_running_loop()
    start = _starts.get(loop)
    if start is None or (start.done() and (start.cancelled() or start.exception() is not None)):
        _starts[loop] = loop.create_task(_start(run, scorer, model, tokenizer, evaluated_at_once))
    return await asyncio.shield(_starts[loop])


async def _start(run: Path, scorer: str, model: str, tokenizer: Any, evaluated_at_once: int) -> Resources:
    async with contextlib.AsyncExitStack() as undo:
        created = await _create(undo, run, scorer, model, tokenizer, evaluated_at_once)
        undo.pop_all()  # from here on they live as long as this process
    # Ray ends these processes without closing the event loop. The entries are written by then; this syncs
    # them.
    atexit.register(created.ledger.close)
    freeze_gc()
    return created


async def _create(
    undo: contextlib.AsyncExitStack,
    run: Path,
    scorer: str,
    model: str,
    tokenizer: Any,
    evaluated_at_once: int,
) -> Resources:
    """Create everything. `undo` closes what was created if the rest fails."""
    ledger = LedgerWriter(run, "rollout")
    undo.callback(ledger.close)
    metrics = producer_metrics()
    plan = await asyncio.to_thread(ResumePlan.load, run)

    def posted(request: Request) -> None:
        ledger.posted(request)
        metrics.posted(request)

    def ended(outcome: Outcome) -> None:
        ledger.request_ended(outcome)
        metrics.ended(outcome)

    queue = section("queue", QueueSettings)
    client = QueueClient(queue, on_posted=posted, on_outcome=ended)
    await client.start()
    undo.push_async_callback(client.close)
    scores = resolve_name(scorer)()
    blobs = BlobStore(section("blobs", BlobSettings).url)
    ends = await asyncio.to_thread(_end_tokens, model, tokenizer)
    in_flight = InFlightCounter()
    announcing = await _announce_metrics(queue)  # the last step that may fail
    publishing = asyncio.create_task(in_flight.publish(queue))
    return Resources(
        client=client,
        scorer=scores,
        ledger=ledger,
        texts=CompletionStore(run),
        plan=plan,
        blobs=blobs,
        ends=ends,
        tools=section("tools", ToolSettings),
        metrics=metrics,
        in_flight=in_flight,
        evaluated=asyncio.Semaphore(evaluated_at_once),
        tasks=(publishing,) if announcing is None else (publishing, announcing),
    )


async def _announce_metrics(queue: QueueSettings) -> asyncio.Task[None] | None:
    """Serve this process's metrics and keep them listed. Returns None, and logs a warning, if it cannot."""
    metrics = section("metrics", MetricsSettings)
    labels = {"role": "producer", "node": socket.gethostname(), "process": f"rollouts-{os.getpid()}"}
    try:
        target = await asyncio.to_thread(serve_process, metrics, queue, labels)
    except OSError as error:
        logger.warning("metrics.bind: %s cannot serve metrics: %s", metrics.bind, error)
        return None
    return asyncio.create_task(announce(target, queue))


def _end_tokens(model: str, tokenizer: Any) -> frozenset[int]:
    """The ids at which vLLM stops by itself: the tokenizer's, and those of the model's generation config."""
    from transformers import GenerationConfig

    ids = [tokenizer.eos_token_id]
    try:
        ends = GenerationConfig.from_pretrained(model).eos_token_id
    except OSError:
        ends = None  # a model without generation_config.json
    ids += ends if isinstance(ends, list) else [ends]
    return frozenset(token for token in ids if token is not None)
