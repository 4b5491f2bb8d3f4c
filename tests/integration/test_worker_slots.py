"""A real worker claims for its free slots only, over all its queues and levels."""

from __future__ import annotations

from conftest import StartWorker
from queue_requests import Notes, request_for
from waiting import until

from workers.broker.depths import read_depths
from workers.broker.registry import read_workers
from workers.client.client import QueueClient
from workers.client.handle import RequestHandle
from workers.messages import HIGH, LOW, NORMAL
from workers.settings import QueueSettings

QUEUES = ("search", "judge_text")


async def test_a_worker_with_one_slot_never_holds_two_requests(
    worker: StartWorker, client: QueueClient, queue_settings: QueueSettings, notes: Notes
) -> None:
    """A real worker on two queues with three levels each."""
    running = worker(list(QUEUES), app="queue_app")
    assert [one.queues for one in read_workers(queue_settings.url)] == [QUEUES]
    posted: list[RequestHandle] = []
    for seed, priority in enumerate([LOW, HIGH, NORMAL] * 4):
        for kind in QUEUES:
            request = request_for(notes.order(seconds=0.05), kind, seed=seed)
            posted.append(await client.post(request.model_copy(update={"priority": priority})))
    held: list[int] = []

    def done() -> bool:
        depths = read_depths(queue_settings.url)
        held.append(sum(depths[kind].running for kind in QUEUES))
        return all(one.outcome_now is not None for one in posted)

    await until(done, every_s=0.005)
    assert max(held) == 1
    assert all([(await one.outcome()).ok for one in posted])
    assert running.alive
    assert len(notes.starts) == len(posted)
