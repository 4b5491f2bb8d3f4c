"""verl's agent loop for interleaved documents, around `policy.rollout.rollout` (verl 0.9.1).

verl loads it through `rollout.agent.agent_loop_config_path`, and creates one loop per rollout.

Invariants:
- a masked rollout returns no trajectory, and so is not in its group's baseline, deviation or loss;
- a failed rollout raises, and verl replaces its group;
- in a resumed run (`policy.resume.plan`) a rollout with a complete text continues from it;
- a document of an evaluation is a rollout of lower priority, and few of them run at once
  (`policy.rollout.evaluation`).
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput

from policy.document import Task
from policy.grammar.tags import CLOSE
from policy.inflight import InFlightCounter
from policy.ledger.records import of_evaluation
from policy.resume.completions import Completion, CompletionStore
from policy.resume.state import ResumeClient, ResumeState
from policy.rollout.evaluation import AFTER_TRAINING, LowPriority, evaluation_limits
from policy.rollout.resources import Resources, resources
from policy.rollout.result import RolloutResult, Segment, replay, restored
from policy.rollout.reward_info import reward_info
from policy.rollout.rollout import Limits, Rollout
from workers.client.client import QueueClient
from workers.messages import BlobRef
from workers.pixels import scaled_down
from workers.storage.blobs import BlobStore

if TYPE_CHECKING:
    from PIL import Image

Saved = tuple[ResumeState, Completion]


class InterleavedAgentLoop(AgentLoopBase):
    """Runs one rollout.

    `run` and the parameters after it come from the run's agent-loop file
    (`policy.settings.agent_loop_config`).
    """

    def __init__(
        self,
        *args: Any,
        run: str,
        scorer: str,
        seed: int,
        rollout_timeout_s: float,
        evaluate_timeout_s: float,
        evaluated_at_once: int,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self._run_folder = Path(run)
        self._scorer = scorer
        self._seed = seed
        tokens = int(self.rollout_config.response_length)
        self._limits = Limits(tokens, rollout_timeout_s)
        self._evaluation_limits = evaluation_limits(tokens, evaluate_timeout_s)
        self._evaluated_at_once = evaluated_at_once

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput | list[Any]:
        """Run the rollout of one row of the dataset; returns its trajectory, or an empty list if it is
        masked.
        """
        model = self.config.actor_rollout_ref.model.path
        shared = await resources(
            self._run_folder, self._scorer, model, self.tokenizer, self._evaluated_at_once
        )
        # A document of an evaluation that waits here has not started: it has no record, image or time-out.
        async with shared.evaluated if of_evaluation(row["uid"]) else nullcontext():
            with shared.metrics.rollout():
                return await self._rollout(shared, sampling_params, row)

    async def _rollout(
        self, shared: Resources, sampling_params: dict[str, Any], row: dict[str, Any]
    ) -> AgentLoopOutput | list[Any]:
        task = Task.model_validate_json(row["task"])
        rollout_id, step = shared.plan.name(row["uid"], row["session_id"]), int(row["global_steps"])
        evaluated = of_evaluation(rollout_id)
        limits = self._evaluation_limits if evaluated else self._limits
        if rollout_id in shared.plan.masked:
            return []
        saved: Saved | None = None
        if rollout_id not in shared.plan.continued:
            shared.ledger.started(rollout_id, task, step=step)
        try:
            async with asyncio.timeout(limits.timeout_s) as limit:
                if rollout_id in shared.plan.continued:
                    saved = await asyncio.to_thread(_load, self._run_folder, shared.texts, rollout_id)
                images = [await asyncio.to_thread(self._image, shared.blobs, ref) for ref in task.inputs]
                prompt_ids = await self.ct_build_initial_tokens(
                    list(row["raw_prompt"]), images=images or None
                )
        except Exception as error:
            late = f"prompt not prepared in {limits.timeout_s:g} s" if limit.expired() else error
            shared.ledger.rollout_raised(rollout_id, f"{type(error).__name__}: {late}")
            raise
        if saved and (done := saved[0]).document and done.score:
            return _trajectory(restored(prompt_ids, saved[1], done.document, done.score, done.cut), images)
        generate = partial(
            self._generate,
            in_flight=None if evaluated else shared.in_flight,
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
            "client": LowPriority(shared.client) if evaluated else shared.client,
            "scorer": shared.scorer,
            "ledger": shared.ledger,
            "limits": limits,
            "seed": self._seed,
            "tools": shared.tools,
            "texts": None if evaluated else shared.texts,
        }
        if saved:
            parts |= _resumed_parts(shared.client, *saved)
        result = await self._compose(step, **parts).run(prompt_ids)
        return [] if result.reward is None else _trajectory(result, images)

    def _compose(self, step: int, **parts: Any) -> Rollout:
        """Build the rollout requested in `step`. Subclasses override it to run a rollout in another way."""
        return Rollout(**parts)

    async def _generate(
        self,
        ids: list[int],
        left: int,
        number: int,
        *,
        in_flight: InFlightCounter | None,
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
        # Admission counts the slots of training alone; a document of an evaluation has no counter, and waits.
        priority = {} if in_flight else {"priority": AFTER_TRAINING}
        with in_flight.slot() if in_flight else nullcontext():
            output = await self.server_manager.generate(
                request_id=request_id,
                prompt_ids=ids,
                sampling_params=params,
                image_data=images or None,
                **priority,
            )
        oldest = output.extra_fields.get("min_global_steps")
        newest = output.extra_fields.get("max_global_steps")
        version = None if oldest is None or newest is None else (int(oldest), int(newest))
        return Segment(list(output.token_ids), list(output.log_probs or []), version)

    def _image(self, blobs: BlobStore, ref: BlobRef) -> Image.Image:
        """An input image as the model gets it: RGB, of at most `data.image_max_pixels`."""
        from PIL import Image

        with Image.open(io.BytesIO(blobs.get(ref))) as stored:
            image = stored.convert("RGB")
        return scaled_down(image, int(self.data_config.image_max_pixels), Image.Resampling.BICUBIC)


def _load(run: Path, texts: CompletionStore, rollout_id: str) -> Saved:
    """Load the state and text of a rollout to continue. Raises `FileNotFoundError` if either is missing."""
    if (text := texts.load(rollout_id)) is None:
        raise FileNotFoundError(f"the text of rollout {rollout_id} is missing")
    return ResumeState.load(run, rollout_id), text


def _resumed_parts(client: QueueClient, state: ResumeState, text: Completion) -> dict[str, Any]:
    """The parts of a rollout that differ when its text is complete."""
    return {
        "generate": replay(text, state.cut),
        "client": ResumeClient(client, state.outcomes),
        "replayed": True,
    }


def _trajectory(result: RolloutResult, images: list[Image.Image]) -> AgentLoopOutput:
    assert result.document is not None
    assert result.score is not None
    oldest, newest = result.versions or (0, 0)
    return AgentLoopOutput(
        prompt_ids=result.prompt_ids,
        response_ids=result.token_ids,
        response_mask=[1] * len(result.token_ids),
        response_logprobs=result.log_probs,
        multi_modal_data={"images": images} if images else {},
        reward_score=result.reward,
        num_turns=result.segments,
        metrics=AgentLoopMetrics(generate_sequences=result.generated_s, compute_score=result.scored_s),
        extra_fields={
            "reward_extra_info": reward_info(result.document, result.score),
            "min_global_steps": oldest,
            "max_global_steps": newest,
        },
    )


def _seed(*parts: object) -> int:
    """A seed from the run's seed, the prompt, the number of its earlier uses, and the rollout's place in its
    group.

    It is the same in every process and run, whenever the prompt is submitted.
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") % 2**31
