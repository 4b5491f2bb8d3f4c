"""Asks the judge of criteria for one small verdict, so that "it answers" means that one came that parses.

Invariant: the same prompt, schema and client as in an evaluation; nothing is queued and nothing is kept.
"""

from __future__ import annotations

import tempfile
import time

from evaluation.payloads import RubricPayload
from evaluation.rubric.openai import ask
from evaluation.settings import RubricSettings
from rewards.judges.probe import context, refusals_are_ours, specimen
from workers.storage.blobs import BlobStore

KIND = "judge_rubric"


def probe(settings: RubricSettings, timeout_s: float) -> float:
    """Seconds that a verdict took. Raises `InfrastructureFault` saying why there was none."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="llmi-probe-") as folder, refusals_are_ours():
        blobs = BlobStore(folder)
        payload = RubricPayload.of(specimen(blobs), "It shows an orange square.", settings)
        ask(payload, settings, context(KIND, payload, blobs, timeout_s))
    return time.monotonic() - started
