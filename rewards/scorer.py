"""Score a draft: post the judges' requests, await the verdicts, apply the formula.

Invariants:
- The text judge's request is posted at once; it never waits for an image. The image judge's is posted when
  the last image has arrived, and only when its verdict can change the reward.
- When the image judge finds an image lost, the image is made again and a second request posted. Any other
  infrastructure failure, of a tool or a judge, masks the sample. It is never a number. Only a tool of a
  document with too many images (`Formula.too_many_images`) masks nothing; the breakdown has it as `lost`.
- A document that a judge refuses by the model's fault (content, length) gets the worst grades on that judge's
  axes, and the breakdown has `refused`.
- If scoring ends early, for whatever reason, the open requests are cancelled.
- Request ids are derived from the document's id, so that scoring again after a crash finds the verdicts that
  exist.
- The breakdown has the judges' model names as they report them, their expected scores and their reasons.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, JsonValue

from policy.document import Document
from policy.scoring import Draft, Score
from rewards import axes, formulas
from rewards.facts import Facts, masking
from rewards.formula import Formula
from rewards.judges import IMAGE_KIND, TEXT_KIND
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.settings import JudgeSettings, RewardSettings
from rewards.verdicts import ImageVerdict, TextVerdict, Verdict, with_axes
from workers.client.handle import RequestClient, RequestHandle, cancel_open
from workers.errors import Fault, InfrastructureFault
from workers.messages import Failure, Outcome, Request, Success

V = TypeVar("V", bound=Verdict)


@dataclass(frozen=True)
class QueueScorer:
    """Implements `policy.scoring.Scorer` over the judges' queues. Holds no connection: the draft has one."""

    reward: RewardSettings
    judges: JudgeSettings

    @classmethod
    def from_config(cls) -> QueueScorer:
        """From the sections "reward" and "judges" of the configuration. Raises ConfigError."""
        return cls(RewardSettings.load(), JudgeSettings.load())

    async def score(self, draft: Draft) -> Score:
        """The draft's score; masked when infrastructure failed a tool or a judge."""
        owner, formula = draft.document.rollout_id, formulas.get(self.reward.formula)
        text_axes = axes.added(formula.axes, "text")
        image_axes = axes.added(formula.axes, "image")
        async with _judge_requests(draft.client) as requests:
            payload = JudgeTextPayload.of(draft.document, judge=self.judges.text.name, axes=text_axes)
            text_handle = await requests.post(TEXT_KIND, payload, self.judges.text.timeout_s, owner)
            document = await draft.finished
            failures, facts = masking(document), Facts.if_nothing_was_lost(document)
            if failures and not formula.too_many_images(facts):
                return Score(reward=None, masked_by=failures)
            image_handle: Failure | RequestHandle | None = None
            if formula.needs_image_verdict(facts):
                shown = self._image_payload(document, formula)
                image_handle = await requests.post(IMAGE_KIND, shown, self.judges.image.timeout_s, owner)
            text_class, image_class = with_axes(TextVerdict, text_axes), with_axes(ImageVerdict, image_axes)
            text = await requests.verdict(text_handle, text_class)
            image = await requests.verdict(image_handle, image_class) if image_handle is not None else None
            lost = image.blob if isinstance(image, Failure) and not isinstance(text, Failure) else ""
            if lost and draft.remake is not None:
                remade = await draft.remake(lost)
                if remade is not None:
                    handle = await self._post_again(requests, remade, formula, owner)
                    image = await requests.verdict(handle, image_class)
        if isinstance(text, Failure) or isinstance(image, Failure):
            return Score(reward=None, masked_by=tuple(v for v in (text, image) if isinstance(v, Failure)))
        score = formula.score(facts, text, image, vl=self.reward.vl)
        breakdown: dict[str, JsonValue] = {**score.breakdown, "judges": requests.answered_by}
        if failures:
            breakdown["lost"] = [failure.cause.value for failure in failures]
        if requests.refused:
            breakdown["refused"] = requests.refused
        if requests.shortened:
            breakdown["shortened"] = requests.shortened
        if expected := {**text.expected, **(image.expected if image else {})}:
            breakdown["expected"] = {**expected}
        if requests.reasons:
            breakdown["reasons"] = requests.reasons
        return score.model_copy(update={"breakdown": breakdown})

    def _image_payload(self, document: Document, formula: Formula) -> JudgeImagePayload:
        return JudgeImagePayload.of(
            document,
            failures_lower=formula.failures_lower,
            repeats_shown=formula.repeats_shown,
            judge=self.judges.image.name,
            axes=axes.added(formula.axes, "image"),
        )

    async def _post_again(
        self, requests: _JudgeRequests, document: Document, formula: Formula, owner: str
    ) -> RequestHandle | Failure:
        """Post the image judge's second request, for the document with its lost image made again."""
        payload, limit_s = self._image_payload(document, formula), self.judges.image.timeout_s
        return await requests.post(IMAGE_KIND, payload, limit_s, owner, f"{owner}.{IMAGE_KIND}.1")


class _JudgeRequests:
    """The judges' requests of one draft.

    By kind: the judge that answered (`answered_by`), and why a document was `refused` or `shortened`. By
    axis: the `reasons`.
    """

    def __init__(self, client: RequestClient):
        self._client = client
        self._open: set[str] = set()
        self.answered_by: dict[str, JsonValue] = {}
        self.refused: dict[str, JsonValue] = {}
        self.shortened: dict[str, JsonValue] = {}
        self.reasons: dict[str, JsonValue] = {}

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
            priority=self._client.priority,
        )
        self._open.add(request.request_id)
        try:
            return await self._client.post(request)
        except InfrastructureFault as fault:
            self._open.discard(request.request_id)
            return Failure.of(fault)

    async def verdict(self, posted: RequestHandle | Failure, model: type[V]) -> V | Failure:
        """The judge's verdict, or the failure."""
        if isinstance(posted, Failure):
            return posted
        outcome = await posted.outcome()
        self._open.discard(outcome.request_id)
        if isinstance(outcome.result, Success):
            source = outcome.result.source
            self.answered_by[outcome.kind] = source.get("model") or source.get("judge", "")
            if source.get("shortened"):
                self.shortened[outcome.kind] = source["shortened"]
            if isinstance(given := source.get("reasons"), dict):
                self.reasons |= given
        elif outcome.result.fault is Fault.MODEL:
            self.refused[outcome.kind] = outcome.result.detail
        return _read(outcome, model)

    async def cancel_open(self) -> None:
        """Cancel the requests without an outcome."""
        await cancel_open(self._client, self._open, "a scorer")


@asynccontextmanager
async def _judge_requests(client: RequestClient) -> AsyncIterator[_JudgeRequests]:
    requests = _JudgeRequests(client)
    try:
        yield requests
    finally:
        await requests.cancel_open()


def _read(outcome: Outcome, model: type[V]) -> V | Failure:
    if not isinstance(outcome.result, Success):
        return model.worst() if outcome.result.fault is Fault.MODEL else outcome.result
    source = outcome.result.source
    judge = str(source.get("judge", ""))
    try:
        verdict = model.read(outcome.result.verdict, provider=judge)
        return verdict.with_expected(source.get("expected"), provider=judge)
    except InfrastructureFault as fault:
        return Failure.of(fault)
