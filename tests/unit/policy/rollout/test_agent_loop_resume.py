"""The agent loop in a resumed run, for rollouts that the earlier process had started."""

from __future__ import annotations

import asyncio
import contextlib
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from policy.document import Document, Task
from policy.ledger.reader import read_ledger
from policy.ledger.writer import LedgerWriter
from policy.resume.completions import Completion, CompletionSegment, CompletionStore
from policy.resume.plan import ResumePlan
from policy.resume.state import ResumeState
from policy.rollout.rollout import Limits
from policy.scoring import Score
from workers.settings import ToolSettings
from workers.storage.blobs import BlobStore

PROMPT, SAID, END = [1, 2, 3], [72, 105, 256], 256
NAME = "u_0"


class Judge:
    """A scorer without judges."""

    async def score(self, draft: Any) -> Score:
        await draft.finished
        return Score(reward=0.75)


@pytest.fixture
def blobs(tmp_path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


@pytest.fixture
def task(blobs) -> Task:
    """A task with an input image."""
    out = io.BytesIO()
    Image.new("RGB", (40, 20), "teal").save(out, "PNG")
    return Task(question="What is it?", inputs=(blobs.put(out.getvalue()),))


@pytest.fixture
def ask(tmp_path, monkeypatch, blobs, task):
    """Runs a loop for the rollout, as verl does; `resumption`: the plan that its process has read."""
    from policy.rollout import agent_loop

    class Loop(agent_loop.InterleavedAgentLoop):
        """Without verl's tokenizer and server."""

        def __init__(self, timeout_s: float) -> None:
            self.config = SimpleNamespace(actor_rollout_ref=SimpleNamespace(model=SimpleNamespace(path="m")))
            self.data_config = SimpleNamespace(image_max_pixels=200)
            self.server_manager = None
            self.tokenizer = SimpleNamespace(
                decode=lambda ids, **_: bytes(token for token in ids if token != END).decode()
            )
            self._run_folder = tmp_path
            self._scorer = ""
            self._seed = 0
            self._limits = self._evaluation_limits = Limits(100, timeout_s)
            self._evaluated_at_once = 1

        async def ct_build_initial_tokens(self, messages: Any, images: Any = None) -> list[int]:
            assert [image.size for image in images] == [(20, 10)]
            if self._limits.timeout_s < 1:
                await asyncio.Event().wait()
            return list(PROMPT)

    async def asked(resumption: ResumePlan, timeout_s: float = 10.0) -> Any:
        ledger = LedgerWriter(tmp_path, "rollout")
        shared = SimpleNamespace(
            client=None, scorer=Judge(), ledger=ledger, texts=CompletionStore(tmp_path),
            plan=resumption, blobs=blobs, ends=frozenset({END}), in_flight=None, tools=ToolSettings(),
            metrics=SimpleNamespace(rollout=contextlib.nullcontext),
        )  # fmt: skip

        async def resources(*_: Any) -> Any:
            return shared

        monkeypatch.setattr(agent_loop, "resources", resources)
        row = {
            "task": task.model_dump_json(), "uid": "u", "session_id": 0, "global_steps": 3, "index": 0,
            "visit": 0, "raw_prompt": [],
        }  # fmt: skip
        try:
            return await Loop(timeout_s).run({}, **row)
        finally:
            ledger.close()

    return asked


@pytest.fixture
def left(tmp_path, task):
    """Save a text of the weights of step 1, and the state of its rollout."""

    def leave(**known: Any) -> ResumePlan:
        pieces = (CompletionSegment.of(SAID, [-0.5] * len(SAID), (1, 1)),)
        CompletionStore(tmp_path).save(NAME, Completion(time=1.0, pieces=pieces))
        ResumeState(cut=(), **known).save(tmp_path, NAME)
        return ResumePlan(step=2, continued=frozenset({NAME}))

    return leave


def as_it_was(trajectory: Any) -> bool:
    """Check that prompt, image, text and weights equal those of the earlier process."""
    [picture] = trajectory.multi_modal_data["images"]
    written = (trajectory.prompt_ids, trajectory.response_ids, trajectory.response_logprobs)
    steps = trajectory.extra_fields["min_global_steps"], trajectory.extra_fields["max_global_steps"]
    return (picture.size, *written, steps) == ((20, 10), PROMPT, SAID, [-0.5] * len(SAID), (1, 1))


async def test_a_scored_rollout_is_returned_with_its_image(ask, left, task, tmp_path):
    document = Document(rollout_id=NAME, task=task, parts=())
    trajectory = await ask(left(document=document, score=Score(reward=0.25)))
    assert trajectory.reward_score == 0.25
    assert as_it_was(trajectory)
    assert read_ledger(tmp_path).rollouts == {}  # the earlier process recorded everything


async def test_a_rollout_without_a_score_is_replayed_and_scored(ask, left, tmp_path):
    trajectory = await ask(left())
    assert trajectory.reward_score == 0.75
    assert as_it_was(trajectory)
    [rollout] = read_ledger(tmp_path).rollouts.values()
    assert (rollout.rollout_id, rollout.reward, rollout.started) == (NAME, 0.75, 0.0)


async def test_a_masked_rollout_stays_masked(ask, tmp_path):
    assert await ask(ResumePlan(step=2, masked=frozenset({NAME}))) == []
    assert read_ledger(tmp_path).rollouts == {}


@pytest.mark.parametrize("lost", ["text", "known"])
async def test_missing_files_fail_the_group_under_the_rollouts_own_id(lost, ask, left, tmp_path):
    resumption = left()
    (tmp_path / "texts" / "u" / {"text": "u_0.json", "known": "u_0.continued.json"}[lost]).unlink()
    with pytest.raises(FileNotFoundError):
        await ask(resumption)
    [rollout] = read_ledger(tmp_path).rollouts.values()
    assert rollout.rollout_id == NAME
    assert "FileNotFoundError" in rollout.reason


async def test_a_failed_start_is_retried_by_the_next_rollout(monkeypatch):
    """Regression: every later rollout of the process got the first error."""
    from policy.rollout import resources

    starts = iter((OSError("the disk is full"), "made"))

    async def start(*_: Any) -> Any:
        if isinstance(now := next(starts), OSError):
            raise now
        return now

    monkeypatch.setattr(resources, "_start", start)
    with pytest.raises(OSError, match="full"):
        await resources.resources(Path(), "", "", None, 1)
    assert await resources.resources(Path(), "", "", None, 1) == "made"
    assert await resources.resources(Path(), "", "", None, 1) == "made"


async def test_a_prompt_that_is_not_ready_in_time_fails_and_says_so(ask, tmp_path):
    with pytest.raises(TimeoutError):
        await ask(ResumePlan(), timeout_s=0.1)
    reason = read_ledger(tmp_path).rollouts[NAME].reason
    assert reason == "TimeoutError: prompt not prepared in 0.1 s"
