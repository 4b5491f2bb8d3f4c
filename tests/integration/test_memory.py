"""Memory of a process whose rollouts pass ten thousand images by reference."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import psutil
import pydantic_core
import pytest

from llmi.load.simulated import workers as simulated_workers
from llmi.load.simulated.model import END
from llmi.load.simulated.producer import RESPONSE_TOKENS, SimulatedProducer
from policy.document import Task
from policy.rollout.result import Segment
from policy.rollout.rollout import Limits, Rollout
from workers.settings import QueueSettings

pytestmark = pytest.mark.long

TAG = "<imgen>{'source': 'diffusion', 'description': 'a fox', 'params': {'prompt': 'a fox, %d'}}</imgen>"
PER_ROLLOUT, AT_ONCE = 10, 100
TIMEOUT_S = 60.0
WARM_UP, IMAGES = 2_000, 10_000
MOST_BYTES, MOST_BLOCKS = 20_000_000, 5_000  # one left per image would be 10,000 blocks


@pytest.fixture
def workers(queue_settings: QueueSettings, tmp_path: Path) -> Iterator[None]:
    process = simulated_workers.start(queue_settings.url, 0, (0.0, 0.02), tmp_path / "workers.log")
    yield
    process.kill()
    process.wait()


async def write(ids: list[int], left: int, number: int, *, rollout: int) -> Segment:
    """One tag after the other, a byte a token; the last segment closes the last tag."""
    text = f"Picture {number}: " + TAG % (rollout * PER_ROLLOUT + number)
    segment = [*text.encode(), *([0] if number == PER_ROLLOUT - 1 else [])]
    return Segment(segment, [-0.5] * len(segment))


def decode(ids: Sequence[int]) -> str:
    return bytes(token for token in ids if token).decode()


class Run(SimulatedProducer):
    """Rollouts of one process, each with ten images."""

    def __init__(self, settings: QueueSettings, folder: Path):
        super().__init__(settings, folder, seed=0, timeout_s=TIMEOUT_S)
        self.images = 0
        self._rollouts = 0

    async def produce(self, images: int) -> None:
        """Roll out until so many images have come."""

        async def slot() -> None:
            while self.images < images:
                await self._rollout()

        await asyncio.gather(*(slot() for _ in range(AT_ONCE)))

    async def _rollout(self) -> None:
        self._rollouts += 1
        rollout_id, task = f"u{self._rollouts}_0", Task(question="q", image_num=PER_ROLLOUT)
        rollout = Rollout(
            rollout_id=rollout_id,
            task=task,
            generate=partial(write, rollout=self._rollouts),
            decode=decode,
            ends=frozenset({END}),
            client=self.client,
            scorer=self.scorer,
            ledger=self.ledger,
            limits=Limits(RESPONSE_TOKENS, TIMEOUT_S),
        )
        self.ledger.started(rollout_id, task)
        with self.metrics.rollout():
            written = await rollout.run([1, 2, 3])
        assert written.reward is not None
        assert written.document is not None
        self.images += sum(image.blob is not None for image in written.document.images)


def fill_string_cache() -> None:
    """pydantic keeps 16,384 short strings that it read last; from now on it only exchanges them."""
    for number in range(20 * 16_384):
        pydantic_core.from_json(f'"{number:032x}"')


def held() -> tuple[int, int]:
    """Bytes of the process, and blocks of memory that Python's objects take."""
    gc.collect()
    return psutil.Process().memory_info().rss, sys.getallocatedblocks()


@pytest.mark.usefixtures("workers")
async def test_ten_thousand_images_leave_no_memory_behind(queue_settings: QueueSettings, tmp_path: Path):
    fill_string_cache()
    run = Run(queue_settings, tmp_path)
    tasks = len(asyncio.all_tasks())
    async with run:
        await run.produce(WARM_UP)
        size, blocks = held()
        await run.produce(WARM_UP + IMAGES)
        grown, more = held()
        assert run.images >= WARM_UP + IMAGES
        assert run.client.in_flight == 0
        assert grown - size < MOST_BYTES
        assert more - blocks < MOST_BLOCKS
    assert len(asyncio.all_tasks()) == tasks
