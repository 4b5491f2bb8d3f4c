"""Metrics of the documents of a step: the means of their numbers (`policy.rollout.reward_info`)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import transfer_queue as tq


def document_metrics(batch: Any) -> dict[str, float]:
    """The mean of each number over the documents of verl's batch that have it; padding is no document."""
    keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
    if not keys:
        return {}
    data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
    values: dict[str, list[float]] = defaultdict(list)
    for fields in data["extra_fields"]:
        for name, value in getattr(fields, "data", fields)["reward_extra_info"].items():
            if "/" in name:
                values[name].append(value)
    return {name: sum(found) / len(found) for name, found in sorted(values.items())}
