"""A scripted model, a queue that the test holds, and a judge that counts images: around a real rollout."""

from __future__ import annotations

import asyncio

from policy.rollout.result import Segment
from policy.scoring import Score
from workers.errors import Cause, InfrastructureFault
from workers.messages import NORMAL, BlobRef, Failure, Outcome, Success

PROMPT = [1, 2, 3]
END = 256
CLOSE = b"</imgen>"
PATIENCE_S = 5.0


def decode(ids) -> str:
    return bytes(token for token in ids if token != END).decode("utf-8", "replace")


def blob(digit: str) -> BlobRef:
    return BlobRef(sha256=digit * 64, media_type="image/png", size=1, width=1, height=1)


def search(query: str) -> str:
    return f"<imgen>{{'source': 'search', 'description': 'd', 'params': {{'query': '{query}'}}}}</imgen>"


def edit(index: int) -> str:
    params = f"{{'img_index': {index}, 'prompt': 'p'}}"
    return f"<imgen>{{'source': 'edit', 'description': 'd', 'params': {params}}}</imgen>"


class Model:
    """Writes a text of UTF-8 bytes, one token each; stops at a closing tag, at its end or at the limit."""

    def __init__(self, text: str, *, gate_at: int | None = None):
        self.ids = [*text.encode(), END]
        self.calls: list[tuple[int, int]] = []
        self.gate, self.at_gate = asyncio.Event(), asyncio.Event()
        self.gate_at = gate_at

    async def __call__(self, ids, left, number) -> Segment:
        self.calls.append((len(ids), left))
        if number == self.gate_at:
            self.at_gate.set()
            await self.gate.wait()
        await asyncio.sleep(0)
        start = len(ids) - len(PROMPT)
        assert ids[: start + len(PROMPT)] == PROMPT + self.ids[:start], (
            "the model's own tokens come back unchanged"
        )
        written: list[int] = []
        for token in self.ids[start : start + left]:
            written.append(token)
            if bytes(t for t in written if t != END).endswith(CLOSE):
                break
        return Segment(written, [-0.5] * len(written), (number, number + 1))


class Queue:
    """Stands in for `QueueClient`: what is posted waits for the test's answer."""

    wait_s = 60.0
    priority = NORMAL

    def __init__(self, *, down: bool = False):
        self.requests: dict[str, object] = {}
        self.cancelled: list[str] = []
        self.down = down
        self._outcomes: dict[str, asyncio.Future[Outcome]] = {}
        self._arrived = asyncio.Event()

    async def post(self, request):
        if self.down:
            raise InfrastructureFault(Cause.PROVIDER_DOWN, "Redis is away")
        self.requests[request.request_id] = request
        future = self._outcomes[request.request_id] = asyncio.get_running_loop().create_future()
        self._arrived.set()

        class Posted:
            @staticmethod
            async def outcome() -> Outcome:
                return await asyncio.shield(future)

        return Posted()

    async def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)

    def answer(self, request_id: str, result: Success | Failure, *, ran_s: float = 0.0) -> None:
        kind = self.requests[request_id].kind
        times = {"started": 1000.0, "finished": 1000.0 + ran_s} if ran_s else {}
        outcome = Outcome(request_id=request_id, kind=kind, result=result, **times)
        self._outcomes[request_id].set_result(outcome)

    async def seen(self, *request_ids: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not set(request_ids) <= set(self.requests):
                self._arrived.clear()
                await self._arrived.wait()


class Judge:
    """Scores a finished document with its share of images that came."""

    def __init__(self):
        self.drafted = asyncio.Event()
        self.documents = []

    async def score(self, draft) -> Score:
        self.documents.append(draft.document)
        self.drafted.set()
        document = await draft.finished
        failures = tuple(
            p.failure for p in document.images if p.failure and p.failure.fault == "infrastructure"
        )
        if failures:
            return Score(reward=None, masked_by=failures)
        return Score(reward=1.0 if not document.images else len(document.images) / 10)
