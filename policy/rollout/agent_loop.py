"""verl's agent loop for interleaved documents (`rollout.agent.agent_loop_config_path`), around
`policy.rollout.rollout`.

Written for verl 0.9.1. verl makes one loop per rollout; what a process needs once (queue client, scorer,
ledger, metrics, blob store, end tokens) is made by the first and shared. Invariants: a masked rollout
returns no trajectory, which leaves it out of its group's baseline, deviation and loss; a failed one raises,
which replaces its group; in a resumed run (`policy.resume.plan`) a rollout whose text is complete goes on
from there.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import hashlib
import io
import logging
import os
import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput

from policy.document import Task
from policy.grammar.tags import CLOSE
from policy.inflight import InFlightCounter
from policy.ledger.writer import LedgerWriter
from policy.resume.client import ResumeClient
from policy.resume.completions import Completion, CompletionStore
from policy.resume.plan import ResumePlan
from policy.resume.state import ResumeState
from policy.rollout.freeze_gc import freeze_gc
from policy.rollout.result import RolloutResult, Segment, replay, restored
from policy.rollout.rollout import Limits, Rollout
from policy.scoring import Scorer
from workers.client.client import QueueClient
from workers.messages import BlobRef, Outcome, Request
from workers.metrics.endpoint import announce, serve_process
from workers.metrics.telemetry import ProducerMetrics, producer_metrics
from workers.pixels import scaled_down
from workers.settings import BlobSettings, MetricsSettings, QueueSettings, ToolSettings, section
from workers.storage.blobs import BlobStore

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)
Left = tuple[ResumeState, Completion]


@dataclass(frozen=True)
class _Process:
    """What all rollouts of a process share; lives as long as the process does."""

    client: QueueClient
    scorer: Scorer
    ledger: LedgerWriter
    texts: CompletionStore
    resumption: ResumePlan
    blobs: BlobStore
    ends: frozenset[int]
    tools: ToolSettings
    metrics: ProducerMetrics
    writers: InFlightCounter
    tasks: tuple[asyncio.Task[None], ...]  # that tell others about this process, for as long as it lives


_starting: dict[asyncio.AbstractEventLoop, asyncio.Task[_Process]] = {}


async def _process(run: Path, scorer: str, model: str, tokenizer: Any) -> _Process:
    """The process's shared things, made on first use, once per event loop; again where that failed."""
    loop = asyncio.get_running_loop()
    begun = _starting.get(loop)
    if begun is None or (begun.done() and (begun.cancelled() or begun.exception() is not None)):
        _starting[loop] = loop.create_task(_start(run, scorer, model, tokenizer))
    return await asyncio.shield(_starting[loop])


async def _start(run: Path, scorer: str, model: str, tokenizer: Any) -> _Process:
    async with contextlib.AsyncExitStack() as undo:
        process = await _made(undo, run, scorer, model, tokenizer)
        undo.pop_all()  # from here on it lives as long as this process
    # Ray ends these processes without telling the loop; the ledger's lines are written by then, this makes
    # them last.
    atexit.register(process.ledger.close)
    freeze_gc()
    return process


async def _made(
    undo: contextlib.AsyncExitStack, run: Path, scorer: str, model: str, tokenizer: Any
) -> _Process:
    """`undo` ends what was begun when the rest fails."""
    ledger = LedgerWriter(run, "rollout")
    undo.callback(ledger.close)
    metrics = producer_metrics()
    resumption = await asyncio.to_thread(ResumePlan.load, run)

    def posted(request: Request) -> None:
        ledger.posted(request)
        metrics.posted(request)

    def ended(outcome: Outcome) -> None:
        ledger.ended(outcome)
        metrics.ended(outcome)

    queue = section("queue", QueueSettings)
    client = QueueClient(queue, on_posted=posted, on_outcome=ended)
    await client.start()
    undo.push_async_callback(client.close)
    scores = resolve_name(scorer)()
    blobs = BlobStore(section("blobs", BlobSettings).url)
    ends = await asyncio.to_thread(_end_tokens, model, tokenizer)
    writers = InFlightCounter()
    announcing = await _announced(queue)  # the last that may fail
    telling = asyncio.create_task(writers.tell(queue))
    return _Process(
        client=client,
        scorer=scores,
        ledger=ledger,
        texts=CompletionStore(run),
        resumption=resumption,
        blobs=blobs,
        ends=ends,
        tools=section("tools", ToolSettings),
        metrics=metrics,
        writers=writers,
        tasks=(telling,) if announcing is None else (telling, announcing),
    )


async def _announced(queue: QueueSettings) -> asyncio.Task[None] | None:
    """Serve this process's metrics and keep them listed; None, and a warning, where that cannot be."""
    metrics = section("metrics", MetricsSettings)
    labels = {"role": "producer", "node": socket.gethostname(), "process": f"rollouts-{os.getpid()}"}
    try:
        target = await asyncio.to_thread(serve_process, metrics, queue, labels)
    except OSError as error:
        logger.warning("metrics.bind: %s cannot serve metrics: %s", metrics.bind, error)
        return None
    return asyncio.create_task(announce(target, queue))


def _end_tokens(model: str, tokenizer: Any) -> frozenset[int]:
    """The ids at which vLLM stops by itself: the tokenizer's and those of the model's generation config."""
    from transformers import GenerationConfig

    ids = [tokenizer.eos_token_id]
    try:
        ends = GenerationConfig.from_pretrained(model).eos_token_id
    except OSError:
        ends = None  # a model without generation_config.json
    ids += ends if isinstance(ends, list) else [ends]
    return frozenset(token for token in ids if token is not None)


class InterleavedAgentLoop(AgentLoopBase):
    """One rollout. `run`, `scorer`, `seed` and `rollout_timeout_s` come from the run's agent-loop file."""

    def __init__(self, *args: Any, run: str, scorer: str, seed: int, rollout_timeout_s: float, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._run_folder = Path(run)
        self._scorer = scorer
        self._seed = seed
        self._limits = Limits(int(self.rollout_config.response_length), rollout_timeout_s)

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput | list[Any]:
        model = self.config.actor_rollout_ref.model.path
        shared = await _process(self._run_folder, self._scorer, model, self.tokenizer)
        with shared.metrics.rollout():
            return await self._rollout(shared, sampling_params, row)

    async def _rollout(
        self, shared: _Process, sampling_params: dict[str, Any], row: dict[str, Any]
    ) -> AgentLoopOutput | list[Any]:
        task = Task.model_validate_json(row["task"])
        rollout_id, step = shared.resumption.name(row["uid"], row["session_id"]), int(row["global_steps"])
        if rollout_id in shared.resumption.masked:
            return []
        left: Left | None = None
        if rollout_id not in shared.resumption.continued:
            shared.ledger.started(rollout_id, task, step=step)
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                if rollout_id in shared.resumption.continued:
                    left = await asyncio.to_thread(_left, self._run_folder, shared.texts, rollout_id)
                images = [await asyncio.to_thread(self._image, shared.blobs, ref) for ref in task.inputs]
                prompt_ids = await self.ct_build_initial_tokens(
                    list(row["raw_prompt"]), images=images or None
                )
        except Exception as error:
            shared.ledger.broken(rollout_id, f"{type(error).__name__}: {error}")
            raise
        if left and (done := left[0]).document and done.score:
            return _trajectory(restored(prompt_ids, left[1], done.document, done.score, done.cut), images)
        generate = partial(
            self._generate,
            writers=shared.writers,
            request_id=rollout_id,
            sampling=sampling_params,
            images=images,
            seed=_seed(self._seed, row["index"], row["visit"], row["session_id"]),
        )
        parts: dict[str, Any] = {
            "rollout_id": rollout_id,
            "task": task,
            "generate": generate,
            "decode": partial(
                self.tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False
            ),
            "ends": shared.ends,
            "client": shared.client,
            "scorer": shared.scorer,
            "ledger": shared.ledger,
            "limits": self._limits,
            "seed": self._seed,
            "tools": shared.tools,
            "texts": shared.texts,
        }
        if left:
            parts |= _going_on(shared.client, *left)
        written = await self._compose(step, **parts).run(prompt_ids)
        return [] if written.reward is None else _trajectory(written, images)

    def _compose(self, step: int, **parts: Any) -> Rollout:
        """The rollout that `step` asked for, of its parts. For loops that run it in another way."""
        return Rollout(**parts)

    async def _generate(
        self,
        ids: list[int],
        left: int,
        number: int,
        *,
        writers: InFlightCounter,
        request_id: str,
        sampling: dict[str, Any],
        images: list[Image.Image],
        seed: int,
    ) -> Segment:
        params = {
            **sampling,
            "max_tokens": left,
            "stop": [CLOSE],
            "include_stop_str_in_output": True,
            "seed": (seed + number) % 2**31,
        }
        with writers.slot():
            output = await self.server_manager.generate(
                request_id=request_id, prompt_ids=ids, sampling_params=params, image_data=images or None
            )
        oldest = output.extra_fields.get("min_global_steps")
        newest = output.extra_fields.get("max_global_steps")
        version = None if oldest is None or newest is None else (int(oldest), int(newest))
        return Segment(list(output.token_ids), list(output.log_probs or []), version)

    def _image(self, blobs: BlobStore, ref: BlobRef) -> Image.Image:
        """An input image as the model sees it: RGB, at most `data.image_max_pixels` large."""
        from PIL import Image

        with Image.open(io.BytesIO(blobs.get(ref))) as stored:
            image = stored.convert("RGB")
        return scaled_down(image, int(self.data_config.image_max_pixels), Image.Resampling.BICUBIC)


def _left(run: Path, texts: CompletionStore, rollout_id: str) -> Left:
    """What the dead run has left of a rollout that goes on. Raises `FileNotFoundError` when it is gone."""
    if (text := texts.load(rollout_id)) is None:
        raise FileNotFoundError(f"the text of rollout {rollout_id} is gone")
    return ResumeState.load(run, rollout_id), text


def _going_on(client: QueueClient, continued: ResumeState, text: Completion) -> dict[str, Any]:
    """The parts of a rollout that are others when its text is complete."""
    return {
        "generate": replay(text, continued.cut),
        "client": ResumeClient(client, continued.outcomes),
        "replayed": True,
    }


def _trajectory(written: RolloutResult, images: list[Image.Image]) -> AgentLoopOutput:
    assert written.document is not None
    oldest, newest = written.versions or (0, 0)
    numbers = {
        "reward": written.reward,
        "images": float(len(written.document.images)),
        "invalid_tags": float(len(written.document.invalid)),
        "truncated": float(written.truncated),
    }
    return AgentLoopOutput(
        prompt_ids=written.prompt_ids,
        response_ids=written.token_ids,
        response_mask=[1] * len(written.token_ids),
        response_logprobs=written.log_probs,
        multi_modal_data={"images": images} if images else {},
        reward_score=written.reward,
        num_turns=written.segments,
        metrics=AgentLoopMetrics(generate_sequences=written.generated_s, compute_score=written.scored_s),
        extra_fields={
            "reward_extra_info": numbers,
            "min_global_steps": oldest,
            "max_global_steps": newest,
        },
    )


def _seed(*parts: object) -> int:
    """A seed from the run's seed, the prompt, how often it was asked before, and the sibling: the same in
    every process and every run, whenever the prompt was submitted."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") % 2**31
