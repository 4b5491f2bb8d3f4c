"""The scorer: from a draft to its score, over the judges' queues.

Invariants: the text judge is posted at once and never waits for an image; the image judge is posted when
the last image is in, and only when there is an image whose grade can matter; an image that this judge finds
lost is made again, and the judge asked once more; any other failure of infrastructure, of a tool or of a
judge, masks the sample and is never a number; a document that a judge refuses by the model's fault (its
content, its length) gets the worst grades on that judge's axes, and the breakdown says so (`refused`);
whatever ends the scoring early cancels what is still open; the ids of the requests follow from the
document's, so that a score asked for again after the death of who asked finds the verdicts there are; the
breakdown says which judges spoke, as they name themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, JsonValue

from policy.document import Document
from policy.scoring import Draft, Score
from rewards import formulas
from rewards.facts import Facts, masking
from rewards.judges import IMAGE_KIND, TEXT_KIND
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.settings import JudgeSettings, RewardSettings
from rewards.verdicts import ImageVerdict, TextVerdict, Verdict
from workers.client.handle import RequestClient, RequestHandle
from workers.errors import Fault, InfrastructureFault
from workers.messages import Failure, Outcome, Request, Success

logger = logging.getLogger(__name__)
CANCEL_S = 5.0
V = TypeVar("V", bound=Verdict)


@dataclass(frozen=True)
class QueueScorer:
    """Implements `policy.scoring.Scorer`. Holds no connection: the draft brings its client."""

    reward: RewardSettings
    judges: JudgeSettings

    @classmethod
    def from_config(cls) -> QueueScorer:
        """From the sections "reward" and "judges" of the run's configuration. Raises ConfigError."""
        return cls(RewardSettings.load(), JudgeSettings.load())

    async def score(self, draft: Draft) -> Score:
        """The draft's score; masked when a tool or a judge failed by infrastructure's fault."""
        owner = draft.document.rollout_id
        async with _open_requests(draft.client) as requests:
            reading = JudgeTextPayload.of(draft.document, judge=self.judges.text.name)
            text = await requests.post(TEXT_KIND, reading, self.judges.text.timeout_s, owner)
            document = await draft.finished
            if failures := masking(document):
                return Score(reward=None, masked_by=failures)
            facts = Facts.of(document)
            image: Failure | RequestHandle | None = None
            if formulas.needs_image_verdict(self.reward, facts):
                looking = self._looking(document)
                image = await requests.post(IMAGE_KIND, looking, self.judges.image.timeout_s, owner)
            read = await requests.verdict(text, TextVerdict)
            looked = await requests.verdict(image, ImageVerdict) if image is not None else None
            lost = looked.blob if isinstance(looked, Failure) and not isinstance(read, Failure) else ""
            if lost and draft.make_again is not None:
                whole = await draft.make_again(lost)
                looked = await self._look_again(requests, whole, owner) if whole is not None else looked
        if isinstance(read, Failure) or isinstance(looked, Failure):
            return Score(reward=None, masked_by=tuple(v for v in (read, looked) if isinstance(v, Failure)))
        score = formulas.reward(self.reward, facts, read, looked)
        breakdown: dict[str, JsonValue] = {**score.breakdown, "judges": requests.spoke}
        if requests.refused:
            breakdown["refused"] = requests.refused
        if requests.shortened:
            breakdown["shortened"] = requests.shortened
        return score.model_copy(update={"breakdown": breakdown})

    def _looking(self, document: Document) -> JudgeImagePayload:
        failures_lower = self.reward.formula == "llmi"
        return JudgeImagePayload.of(document, failures_lower=failures_lower, judge=self.judges.image.name)

    async def _look_again(
        self, requests: _Requests, document: Document, owner: str
    ) -> ImageVerdict | Failure:
        """Ask the image judge once more, about a document whose lost image was made again."""
        looking, limit_s = self._looking(document), self.judges.image.timeout_s
        again = await requests.post(IMAGE_KIND, looking, limit_s, owner, f"{owner}.{IMAGE_KIND}.1")
        return await requests.verdict(again, ImageVerdict)


class _Requests:
    """The judges' requests of one draft; knows which are still open, and by kind who `spoke`, and why a
    document was `refused` or `shortened`.
    """

    def __init__(self, client: RequestClient):
        self._client = client
        self._open: set[str] = set()
        self.spoke: dict[str, JsonValue] = {}
        self.refused: dict[str, JsonValue] = {}
        self.shortened: dict[str, JsonValue] = {}

    async def post(
        self, kind: str, payload: BaseModel, limit_s: float, owner: str, request_id: str = ""
    ) -> RequestHandle | Failure:
        request_id = request_id or f"{owner}.{kind}"
        request = Request.make(
            kind,
            payload,
            timeout_s=self._client.wait_s + limit_s,
            limit_s=limit_s,
            owner=owner,
            request_id=request_id,
        )
        self._open.add(request.request_id)
        try:
            return await self._client.post(request)
        except InfrastructureFault as fault:
            self._open.discard(request.request_id)
            return Failure.of(fault)

    async def verdict(self, posted: RequestHandle | Failure, model: type[V]) -> V | Failure:
        """The judge's verdict, or why there is none."""
        if isinstance(posted, Failure):
            return posted
        outcome = await posted.outcome()
        self._open.discard(outcome.request_id)
        if isinstance(outcome.result, Success):
            source = outcome.result.source
            self.spoke[outcome.kind] = source.get("model") or source.get("judge", "")
            if source.get("shortened"):
                self.shortened[outcome.kind] = source["shortened"]
        elif outcome.result.fault is Fault.MODEL:
            self.refused[outcome.kind] = outcome.result.detail
        return _read(outcome, model)

    async def cancel_open(self) -> None:
        """Cancel what has no outcome yet; a queue that does not answer in time keeps them until their
        deadline.
        """
        if not self._open:
            return
        try:
            async with asyncio.timeout(CANCEL_S):
                await asyncio.gather(*(self._client.cancel(request_id) for request_id in self._open))
        except (TimeoutError, InfrastructureFault) as error:
            logger.warning("%d judge requests were left to their deadlines: %s", len(self._open), error)


@asynccontextmanager
async def _open_requests(client: RequestClient) -> AsyncIterator[_Requests]:
    requests = _Requests(client)
    try:
        yield requests
    finally:
        await requests.cancel_open()


def _read(outcome: Outcome, model: type[V]) -> V | Failure:
    if not isinstance(outcome.result, Success):
        return model.worst() if outcome.result.fault is Fault.MODEL else outcome.result
    try:
        return model.read(outcome.result.verdict, provider=str(outcome.result.source.get("judge", "")))
    except InfrastructureFault as fault:
        return Failure.of(fault)
