"""Request one small verdict from the judge of criteria and check that it parses.

Invariant: same prompt, schema and client as in an evaluation. Nothing is queued or stored.
"""

from __future__ import annotations

import tempfile
import time

from evaluation.payloads import RUBRIC_KIND, RubricPayload
from evaluation.rubric.openai import judge
from evaluation.settings import RubricSettings
from rewards.judges.probe import context, refusals_as_infrastructure, sample_document
from workers.storage.blobs import BlobStore


def probe(settings: RubricSettings, timeout_s: float) -> float:
    """Seconds that a verdict took. Raises `InfrastructureFault` when there was none."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="llmi-probe-") as folder, refusals_as_infrastructure():
        blobs = BlobStore(folder)
        payload = RubricPayload.of(sample_document(blobs), "It shows an orange square.", settings)
        judge(payload, settings, context(RUBRIC_KIND, payload, blobs, timeout_s))
    return time.monotonic() - started
