"""The documents of an evaluation in verl's transfer queue (verl 0.9.1): submit, and read what has ended.

They are in the partition `val`, to which verl's rollout processes write when a batch has `validate`. verl's
own `_validate` waits for them; here nothing waits.

Invariants:
- no document is in the partition of training, so none counts for admission, staleness or a batch;
- a document is removed from the queue when it is read.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import transfer_queue as tq
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import collate_fn

from policy.ledger.records import EVALUATION
from policy.train.document_metrics import document_numbers
from policy.train.evaluation.result import Scored
from policy.train.verl_private import VAL

logger = logging.getLogger(__name__)
RETRY_S = 30.0  # between two attempts to read the rows


@dataclass(frozen=True)
class Ended:
    """A prompt that has ended.

    `rollouts`: ids of its samples with a reward; `scored`: their numbers. `failed`: whether a sample raised.
    """

    uid: str
    rollouts: tuple[str, ...]
    scored: tuple[Scored, ...]
    failed: bool


class Rows:
    """The rows of a dataset, read in a thread: reading one may store its images."""

    def __init__(self, dataset: Any):
        self._dataset = dataset
        self._retry_at = 0.0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evaluation-rows")
        self._next: Future[dict[str, Any]] = self._thread.submit(self._read)

    def __len__(self) -> int:
        return len(self._dataset)

    def ready(self) -> bool:
        """Whether they have been read. After an error they are read again: the image store may be away."""
        if not self._next.done():
            return False
        if (error := self._next.exception()) is None:
            return True
        if (now := time.monotonic()) >= self._retry_at:
            logger.warning("the test files were not read for an evaluation: %s", error)
            self._next, self._retry_at = self._thread.submit(self._read), now + RETRY_S
        return False

    def take(self) -> dict[str, Any]:
        """All rows, as verl's collate function returns them; starts to read them for the next time."""
        rows, self._next = self._next.result(), self._thread.submit(self._read)
        return rows

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _read(self) -> dict[str, Any]:
        # The same seeds in each evaluation, so that two of them differ by the weights alone.
        return collate_fn([{**self._dataset[at], "visit": 0} for at in range(len(self._dataset))])


def submit(rows: dict[str, Any], version: int, manager: Any) -> list[str]:
    """Start the rollouts of all rows, and return the ids of the prompts.

    `manager`: verl's agent loop manager.
    """
    batch = tu.get_tensordict(rows)
    # Unlike a group, an evaluation that is done again is another one: its documents get other ids.
    name = f"{EVALUATION}{version}-{uuid.uuid4().hex[:8]}"
    uids = [f"{name}-{row}" for row in range(len(batch))]
    tu.assign_non_tensor_stack(batch, "uid", uids)
    tu.assign_non_tensor_data(batch, "global_steps", version)
    tu.assign_non_tensor_data(batch, "validate", True)
    tag = {"is_prompt": True, "status": "pending", "global_steps": version}
    tq.kv_batch_put(keys=uids, partition_id=VAL, tags=[dict(tag) for _ in uids])
    manager.generate_sequences(batch)
    return uids


def take_ended(uids: Sequence[str]) -> list[Ended]:
    """Remove the prompts that have ended from the queue, and return them."""
    tags = (tq.kv_list(VAL) or {}).get(VAL, {})
    ended = [uid for uid in uids if tags.get(uid, {}).get("status", "failure") in ("finished", "failure")]
    if not ended:
        return []
    keys: dict[str, list[str]] = {uid: [] for uid in ended}
    for key in tags:
        if (uid := key.rsplit("_", 2)[0]) in keys and uid != key:
            keys[uid].append(key)
    every = [key for uid in ended for key in keys[uid]]
    numbers = dict(zip(every, document_numbers(every, VAL), strict=True))

    def scored(uid: str) -> tuple[Scored, ...]:
        return tuple(
            Scored(uid, numbers[key], int(tags[key]["min_global_steps"]), int(tags[key]["max_global_steps"]))
            for key in keys[uid]
        )

    found = [
        Ended(
            uid=uid,
            rollouts=tuple(key.rpartition("_")[0] for key in keys[uid]),
            scored=scored(uid),
            failed=tags.get(uid, {}).get("status") != "finished",
        )
        for uid in ended
    ]
    tq.kv_clear(keys=[*(uid for uid in ended if uid in tags), *every], partition_id=VAL)
    return found


def discard() -> None:
    """Remove everything from the partition: a checkpoint of the queue holds the documents in flight."""
    if keys := list((tq.kv_list(VAL) or {}).get(VAL, {})):
        tq.kv_clear(keys=keys, partition_id=VAL)
