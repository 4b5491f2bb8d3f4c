"""Cancelling the open requests of an owner that ends."""

from __future__ import annotations

import logging

import pytest

from workers.client.handle import cancel_open
from workers.errors import Cause, InfrastructureFault


class Client:
    """Records which requests were cancelled, or raises `fault`."""

    wait_s = 0.0
    priority = 3

    def __init__(self, fault: InfrastructureFault | None = None):
        self.cancelled: list[str] = []
        self.fault = fault

    async def post(self, request):
        raise AssertionError("nothing is posted")

    async def cancel(self, request_id: str) -> None:
        if self.fault is not None:
            raise self.fault
        self.cancelled.append(request_id)


async def test_every_open_request_is_cancelled():
    client = Client()
    await cancel_open(client, {"a", "b"}, "u_0")
    assert sorted(client.cancelled) == ["a", "b"]


async def test_redis_that_does_not_answer_is_logged(caplog: pytest.LogCaptureFixture):
    client = Client(InfrastructureFault(Cause.PROVIDER_DOWN, "Redis does not answer", provider="redis"))
    with caplog.at_level(logging.WARNING):
        await cancel_open(client, {"a"}, "u_0")
    assert "1 requests of u_0 were not cancelled" in caplog.text
