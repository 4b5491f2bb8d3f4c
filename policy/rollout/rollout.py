"""Run one rollout: generate and decode segments, post the request of each tag that closes, score, record.

Independent of verl: generator, client and scorer are parameters.

A rollout has its time (`Limits.timeout_s`) twice: for its text, and for the tools and judges that are open
when the text is complete. The prompt has been prepared before, in the same time once more.

- A text that runs out of it is cut after its last complete segment, and scored as it stands, like one that
  reaches the token limit. Masking it would be wrong: slow texts are the long ones, and a policy that loses
  nothing by them learns to write longer.
- If the generator stood still for long (`policy.rollout.stalls`), or tools or judges run out of the time, the
  rollout is masked: that is infrastructure. The cause is `rollout_timeout`, with what was late.
- A `TimeoutError` from anywhere else is an error like any other.

Invariants:
- one terminal state per rollout: `run` records `masked` or `cancelled`; a scored rollout stays open for the
  sampler, and the state of one that raises follows from its group;
- token ids in and out: text is never encoded again;
- generation never waits for a tool;
- nothing that it started outlives it, except the saved text and a segment that vLLM was generating: verl does
  not abort a request when its caller is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field

from policy.document import Document, Part, Task
from policy.grammar.tags import CLOSE, TagReader
from policy.ledger.writer import LedgerWriter
from policy.resume.completions import CompletionStore
from policy.rollout.detokenizer import Decode, Detokenizer
from policy.rollout.result import Generate, RolloutResult
from policy.rollout.stalls import stall
from policy.rollout.tooling import Tooling
from policy.scoring import Draft, Score, Scorer
from workers.client.handle import RequestClient
from workers.errors import Cause
from workers.messages import Failure
from workers.settings import ToolSettings

logger = logging.getLogger(__name__)
# Most tokens of a segment, and so the most that a text loses when it is cut by time. vLLM does not find a
# stop string that began in an earlier segment: a tag with such an `</imgen>` is posted when the segment ends.
SEGMENT_TOKENS = 2048
SAVE_S = 60.0  # most time to save a text


@dataclass(frozen=True)
class Limits:
    """`response_tokens`: of all segments together. `timeout_s`: seconds for the text, and for its score, by
    `setting`. `cut`: whether a text that runs out of time is cut and scored; else it is masked.
    """

    response_tokens: int
    timeout_s: float
    cut: bool = True
    setting: str = "train.rollout_timeout_s"


@dataclass(frozen=True)
class Rollout:
    """One rollout and everything it needs.

    `ends`: ids of the model's end tokens. `tools`: limits of the tools. `texts`: where to save its text for a
    resumed run; None: nowhere. `replayed`: `generate` returns a saved text.
    """

    rollout_id: str
    task: Task
    generate: Generate
    decode: Decode
    ends: frozenset[int]
    client: RequestClient
    scorer: Scorer
    ledger: LedgerWriter
    limits: Limits
    seed: int = 0
    tools: ToolSettings = field(default_factory=ToolSettings)
    texts: CompletionStore | None = None
    replayed: bool = False

    async def run(self, prompt_ids: list[int]) -> RolloutResult:
        """Generate and score one document. The caller has recorded it as started.

        Records the score, and a terminal state unless the rollout can be trained on. Raises what the
        generator raises; verl then replaces the group, and it is `failed`.
        """
        tooling = Tooling(
            self.client,
            rollout_id=self.rollout_id,
            inputs=self.task.inputs,
            seed=self.seed,
            tools=self.tools,
        )
        result = RolloutResult(prompt_ids=prompt_ids)
        try:
            await self._generate_text(result, tooling)
            await self._score_in_time(result, tooling)
        except asyncio.CancelledError:
            self.ledger.rollout_ended(self.rollout_id, "cancelled", reason="the rollout was cancelled")
            raise
        except Exception as error:
            self.ledger.rollout_raised(self.rollout_id, f"{type(error).__name__}: {error}")
            raise
        finally:
            await tooling.close()
        self._record(result)
        return result

    async def _generate_text(self, result: RolloutResult, tooling: Tooling) -> None:
        started = time.monotonic()
        text, tags = Detokenizer(self.decode), TagReader(len(self.task.inputs))
        try:
            async with asyncio.timeout(self.limits.timeout_s) as limit:
                while not await self._generate_segment(result, text, tags, tooling):
                    pass
        except TimeoutError:
            if not limit.expired():
                raise
            result.out_of_time = True
            result.stall = self._late(result)
        self._parse(tags.feed(text.close()) + tags.close(), result, tooling)
        result.generated_s = time.monotonic() - started
        if not result.stall and not self.replayed:
            await self._save_text(result)
            self.ledger.text_generated(self.rollout_id, result.spans)

    async def _save_text(self, result: RolloutResult) -> None:
        if self.texts is not None:
            try:
                async with asyncio.timeout(SAVE_S):
                    await asyncio.to_thread(self.texts.save, self.rollout_id, result.completion)
            except OSError as error:  # this run continues; a resumed one would generate it again
                why = str(error) or f"not written in {SAVE_S:g} s"
                logger.warning("the text of %s was not saved: %s", self.rollout_id, why)

    def _late(self, result: RolloutResult) -> str | None:
        """Why a text that ran out of time is masked; None if it is cut."""
        if not self.limits.cut:
            return "the text was not complete"
        return stall(result.segment_times, self._left(result), self.limits.timeout_s)

    def _left(self, result: RolloutResult) -> int:
        """Most tokens of the next segment."""
        return min(self.limits.response_tokens - result.tokens, SEGMENT_TOKENS)

    async def _generate_segment(
        self, result: RolloutResult, text: Detokenizer, tags: TagReader, tooling: Tooling
    ) -> bool:
        """Generate one segment and parse it. Returns whether it was the last.

        A method of its own, so that the segment is freed before the next one is generated.
        """
        left = self._left(result)
        began = time.time()
        segment = await self.generate(result.context, left, result.segments)
        result.spans.append((began, time.time()))
        if not segment.token_ids:
            raise RuntimeError("the generator returned no token")
        result.extend(segment)
        piece = text.feed(segment.token_ids)
        self._parse(tags.feed(piece), result, tooling)
        if segment.token_ids[-1] in self.ends:
            return True
        result.truncated = result.tokens >= self.limits.response_tokens
        result.out_of_time = segment.out_of_time
        if result.truncated or segment.last:
            return True
        return CLOSE not in piece and len(segment.token_ids) < left  # it stopped for another reason

    def _parse(self, parts: list[Part], result: RolloutResult, tooling: Tooling) -> None:
        result.parts += tooling.take(parts)

    async def _score_in_time(self, result: RolloutResult, tooling: Tooling) -> None:
        if result.stall:
            self._mask(result, result.stall)
            return
        try:
            async with asyncio.timeout(self.limits.timeout_s) as limit:
                await self._score(result, tooling)
        except TimeoutError:
            if not limit.expired():
                raise
            late = ", ".join(tooling.unfinished()) or "its judges"
            self._mask(result, f"no outcome of {late}")

    async def _score(self, result: RolloutResult, tooling: Tooling) -> None:
        started = time.monotonic()
        document = self._document(result, tuple(result.parts))
        finished = asyncio.create_task(self._finish(result, tooling))

        async def remake(sha256: str) -> Document | None:
            return await self._finish(result, tooling) if await tooling.remake(sha256) else None

        draft = Draft(document=document, finished=finished, client=self.client, remake=remake)
        try:
            score = await self.scorer.score(draft)
            await finished
            result.document = await self._finish(result, tooling)  # an image may have been regenerated
        finally:
            finished.cancel()
            await asyncio.gather(finished, return_exceptions=True)
        result.score = score
        result.scored_s = time.monotonic() - started

    async def _finish(self, result: RolloutResult, tooling: Tooling) -> Document:
        return self._document(result, await tooling.finish(result.parts))

    def _document(self, result: RolloutResult, parts: tuple[Part, ...]) -> Document:
        return Document(
            rollout_id=self.rollout_id,
            task=self.task,
            parts=parts,
            truncated=result.truncated,
            out_of_time=result.out_of_time,
        )

    def _mask(self, result: RolloutResult, why: str) -> None:
        detail = f"{why} within {self.limits.timeout_s:g} s ({self.limits.setting})"
        result.document = self._document(result, tuple(result.parts))
        result.score = Score(reward=None, masked_by=(Failure(cause=Cause.ROLLOUT_TIMEOUT, detail=detail),))

    def _record(self, result: RolloutResult) -> None:
        assert result.document is not None
        assert result.score is not None
        self.ledger.scored(result.document, result.score, tokens=result.tokens, versions=result.versions)
        if result.reward is None:
            causes = ", ".join(sorted({failure.cause for failure in result.score.masked_by}))
            self.ledger.rollout_ended(self.rollout_id, "masked", reason=causes)
