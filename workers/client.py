"""The async client of the queues: post a request, await its outcome by push. Never blocks the loop."""

from __future__ import annotations


class QueueClient:
    """Interface; being written."""
