"""Metrics of documents: the means of their numbers (`policy.rollout.reward_info`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import transfer_queue as tq

from policy.train.means import means


def document_metrics(batch: Any) -> dict[str, float]:
    """The mean of each number over the documents of verl's batch that have it; padding is no document."""
    keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
    return means(document_numbers(keys, batch.partition_id)) if keys else {}


def document_numbers(keys: Sequence[str], partition: str) -> list[Mapping[str, float]]:
    """The numbers of the documents with these keys in verl's transfer queue, in their order."""
    if not keys:
        return []
    data = tq.kv_batch_get(keys=list(keys), partition_id=partition, select_fields=["extra_fields"])
    return [getattr(fields, "data", fields)["reward_extra_info"] for fields in data["extra_fields"]]
