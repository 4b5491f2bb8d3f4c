"""Request status from the answer of the script and the worker registry."""

from __future__ import annotations

import pytest

from workers.broker.dead_letters import QUARANTINED
from workers.broker.registry import WorkerRecord
from workers.broker.request_status import RequestStatus, status_of
from workers.errors import Cause
from workers.messages import Failure, Outcome, Success
from workers.settings import QueueSettings

SETTINGS = QueueSettings(lease_s=15.0, result_ttl_s=1000)
READY = WorkerRecord("w", "n", ("code", "edit"), ready=True)
LOADING = WorkerRecord("v", "n", ("code",), ready=False)
OTHER = WorkerRecord("u", "n", ("search",), ready=True)


OUTCOME = Outcome(request_id="r", kind="code", result=Success()).model_dump_json().encode()
POISON = Failure(cause=Cause.WORKER_LOST, detail=f"{QUARANTINED}3 workers were lost while they ran it")
QUARANTINE = Outcome(request_id="r", kind="code", result=POISON).model_dump_json().encode()
NOT_HELD = (b"", b"0", b"0")


def held(held_s: float, left_s: float) -> tuple[bytes, bytes, bytes]:
    """Worker, microseconds since the claim and until the lease expires, as the script answers them."""
    return b"w@n", f"{held_s * 1e6:.0f}".encode(), f"{left_s * 1e6:.0f}".encode()


@pytest.mark.parametrize(
    ("found", "workers", "expected"),
    [
        ([OUTCOME, None, 0, *NOT_HELD, 0], [READY], RequestStatus("done", workers=1)),
        ([OUTCOME, b"held", 0, *held(1, 9), 0], [READY], RequestStatus("done", workers=1)),
        ([QUARANTINE, None, 0, *NOT_HELD, 0], [READY], RequestStatus("quarantined", workers=1)),
        (
            [None, b"waiting", 3, *NOT_HELD, 1],
            [READY, OTHER],
            RequestStatus("waiting", before=3, workers=1, attempts=1),
        ),
        ([None, b"waiting", 0, *NOT_HELD, 0], [OTHER], RequestStatus("unserved")),
        ([None, b"waiting", 0, *NOT_HELD, 0], [LOADING], RequestStatus("unserved", loading=1)),
        (
            [None, b"held", 0, *held(40, 11), 0],
            [READY],
            RequestStatus("running", for_s=40.0, worker="w@n", workers=1, attempts=1),
        ),
        (
            [None, b"held", 0, *held(40, 6), 2],  # two renewals are late
            [],
            RequestStatus("running", for_s=40.0, worker="w@n", attempts=3),
        ),
        (
            [None, b"held", 0, *held(40, 4), 1],
            [READY],
            RequestStatus("silent", for_s=8.0, worker="w@n", workers=1, attempts=2),
        ),
        (
            [None, b"held", 0, *held(40, -3), 0],
            [],
            RequestStatus("silent", for_s=15.0, worker="w@n", attempts=1),
        ),
        ([None, None, 0, *NOT_HELD, 0], [READY], RequestStatus("unknown", workers=1)),
    ],
)
def test_status_of_a_request(found, workers, expected):
    """A lease of 15 s is granted for 12 s and renewed every 3 s."""
    assert status_of(found, workers, "code", SETTINGS) == expected


def test_a_request_for_a_worker_that_loads_is_not_stuck():
    assert RequestStatus("unserved").stuck
    assert not RequestStatus("unserved", loading=1).stuck
    assert not RequestStatus("running", for_s=1e6).stuck
    assert RequestStatus("silent").stuck
    assert RequestStatus("unknown").stuck
