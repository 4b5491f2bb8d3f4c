"""One rollout: generate by segments, post each tool request as its tag closes, write on, score, record.

Free of verl: the generator, the client and the scorer are given. Invariants: token ids in, token ids out,
text is never encoded again; generation never waits for a tool; a rollout ends in `Written`, which has a
reward or is masked, or in the exception that stopped it, and the ledger hears which; nothing it started
outlives it but its text, from which a resumed run can go on.
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
from policy.rollout.tooling import Tooling
from policy.scoring import Draft, Score, Scorer
from workers.client.handle import RequestClient
from workers.errors import Cause
from workers.messages import Failure
from workers.settings import ToolSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """`response_tokens`: the budget of all segments together; `timeout_s`: from the first token to the
    score."""

    response_tokens: int
    timeout_s: float


@dataclass(frozen=True)
class Rollout:
    """Everything one rollout needs. `ends`: the ids of the model's end tokens; `tools`: what a document may
    ask of them; `texts`: where its text is kept for a resumed run; `replayed`: that is what this is, and
    `generate` brings the text again."""

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
        """Write and score one document, which the caller has recorded as started.

        The ledger hears the score and the terminal state; a rollout that is to be trained on stays open for
        the sampler. Raises what the generator raises; the group is then `failed`.
        """
        tooling = Tooling(
            self.client,
            rollout_id=self.rollout_id,
            inputs=self.task.inputs,
            seed=self.seed,
            tools=self.tools,
        )
        written = RolloutResult(prompt_ids=prompt_ids)
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                await self._write(written, tooling)
                await self._score(written, tooling)
        except TimeoutError:
            self._mask_late(written)
        except asyncio.CancelledError:
            self.ledger.closed(self.rollout_id, "cancelled", reason="the rollout was cancelled")
            raise
        except Exception as error:
            self.ledger.broken(self.rollout_id, f"{type(error).__name__}: {error}")
            raise
        finally:
            await tooling.close()
        self._record(written)
        return written

    async def _write(self, written: RolloutResult, tooling: Tooling) -> None:
        begun = time.monotonic()
        text, tags = Detokenizer(self.decode), TagReader(len(self.task.inputs))
        while not await self._write_on(written, text, tags, tooling):
            pass
        self._read(tags.feed(text.close()) + tags.close(), written, tooling)
        written.generated_s = time.monotonic() - begun
        if not self.replayed:
            await self._keep(written)
            self.ledger.wrote(self.rollout_id, written.spans)

    async def _keep(self, written: RolloutResult) -> None:
        if self.texts is not None:
            try:
                await asyncio.to_thread(self.texts.save, self.rollout_id, written.text)
            except OSError as error:  # a resumed run would begin it anew; this one goes on
                logger.warning("the text of %s is not kept: %s", self.rollout_id, error)

    async def _write_on(
        self, written: RolloutResult, text: Detokenizer, tags: TagReader, tooling: Tooling
    ) -> bool:
        """Generate one segment and read it. Returns whether it was the last.

        By itself, so that while the next one is being generated nothing of this one is held but what was
        read.
        """
        left = self.limits.response_tokens - written.tokens
        asked = time.time()
        segment = await self.generate(written.context, left, written.segments)
        written.spans.append((asked, time.time()))
        if not segment.token_ids:
            raise RuntimeError("the generator ended without writing anything")
        written.extend(segment)
        piece = text.feed(segment.token_ids)
        self._read(tags.feed(piece), written, tooling)
        if segment.token_ids[-1] in self.ends:
            return True
        written.truncated = len(segment.token_ids) >= left
        return written.truncated or CLOSE not in piece  # or it stopped for a reason of its own

    def _read(self, parts: list[Part], written: RolloutResult, tooling: Tooling) -> None:
        written.parts += tooling.take(parts)

    async def _score(self, written: RolloutResult, tooling: Tooling) -> None:
        begun = time.monotonic()
        document = self._document(written, tuple(written.parts))
        finished = asyncio.create_task(self._finish(written, tooling))

        async def make_again(sha256: str) -> Document | None:
            return await self._finish(written, tooling) if await tooling.make_again(sha256) else None

        draft = Draft(document=document, finished=finished, client=self.client, make_again=make_again)
        try:
            score = await self.scorer.score(draft)
            await finished
            written.document = await self._finish(written, tooling)  # an image may have been made again since
        finally:
            finished.cancel()
            await asyncio.gather(finished, return_exceptions=True)
        written.score = score
        written.scored_s = time.monotonic() - begun

    async def _finish(self, written: RolloutResult, tooling: Tooling) -> Document:
        return self._document(written, await tooling.finish(written.parts))

    def _document(self, written: RolloutResult, parts: tuple[Part, ...]) -> Document:
        return Document(rollout_id=self.rollout_id, task=self.task, parts=parts, truncated=written.truncated)

    def _mask_late(self, written: RolloutResult) -> None:
        failure = Failure(
            cause=Cause.TIMEOUT, detail=f"the rollout took longer than {self.limits.timeout_s} s"
        )
        written.document = self._document(written, tuple(written.parts))
        written.score = Score(reward=None, masked_by=(failure,))

    def _record(self, written: RolloutResult) -> None:
        assert written.document is not None
        assert written.score is not None
        self.ledger.scored(written.document, written.score, tokens=written.tokens, versions=written.versions)
        if written.reward is None:
            causes = ", ".join(sorted({failure.cause for failure in written.score.masked_by}))
            self.ledger.closed(self.rollout_id, "masked", reason=causes)
