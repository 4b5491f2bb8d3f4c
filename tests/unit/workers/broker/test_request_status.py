"""Request status from the answer of the script and the worker registry."""

from __future__ import annotations

import pytest

from workers.broker.registry import WorkerRecord
from workers.broker.request_status import RequestStatus, status_of
from workers.settings import QueueSettings

SETTINGS = QueueSettings(lease_s=15.0, result_ttl_s=1000)
READY = WorkerRecord("w", "n", ("code", "edit"), ready=True)
LOADING = WorkerRecord("v", "n", ("code",), ready=False)
OTHER = WorkerRecord("u", "n", ("search",), ready=True)


@pytest.mark.parametrize(
    ("found", "workers", "expected"),
    [
        ([1, 1, 9000, None, -1], [READY], RequestStatus("ended", workers=1, attempts=1)),
        ([0, 0, -2, None, 3], [READY, OTHER], RequestStatus("waiting", before=3, workers=1)),
        ([0, 0, -2, None, 0], [OTHER], RequestStatus("unserved")),
        ([0, 0, -2, None, 0], [LOADING], RequestStatus("unserved", loading=1)),
        (
            [0, 1, 988_000, b"999.0", -1],
            [READY],
            RequestStatus("running", for_s=12.0, workers=1, attempts=1),
        ),
        ([0, 0, -2, b"999.0", -1], [READY], RequestStatus("running", workers=1)),
        ([0, 2, 1, b"992.0", -1], [], RequestStatus("silent", for_s=8.0, attempts=2)),
        ([0, 1, 1, None, -1], [READY], RequestStatus("missing", workers=1, attempts=1)),
    ],
)
def test_status_of_a_request(found, workers, expected):
    assert status_of(found, workers, "code", SETTINGS, now=1000.0) == expected


def test_a_request_for_a_worker_that_loads_is_not_stuck():
    assert RequestStatus("unserved").stuck
    assert not RequestStatus("unserved", loading=1).stuck
    assert not RequestStatus("running", for_s=1e6).stuck
    assert RequestStatus("silent").stuck
