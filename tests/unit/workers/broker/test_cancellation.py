"""A thread of the process sets the flags of cancelled requests; jobs only look at them."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator

import pytest
import redis
from waiting import wait_until

from workers.broker import cancellation
from workers.broker.cancellation import CancellationCheck
from workers.broker.keys import outcome_key
from workers.redis_client import connect_redis
from workers.settings import QueueSettings

Url = Callable[[str], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Url:
    """`use(url)`: the Redis of the watcher that the next check starts."""
    monkeypatch.setattr(cancellation, "POLL_S", 0.01)

    def choose(url: str) -> None:
        monkeypatch.setattr(cancellation, "_watchers", {})
        monkeypatch.setattr(cancellation, "section", lambda *_: QueueSettings(redis_url=url))

    return choose


@pytest.fixture
def server(queue_settings: QueueSettings, use: Url) -> Iterator[redis.Redis]:
    use(queue_settings.url)
    with connect_redis(queue_settings.url) as client:
        yield client


def store(server: redis.Redis, request_id: str) -> None:
    server.set(outcome_key(request_id), "an outcome")


def polls(server: redis.Redis) -> int:
    """How often Redis was asked whether a key exists."""
    stats = server.info("commandstats")
    return int(stats.get("cmdstat_exists", {}).get("calls", 0))


def polled(server: redis.Redis) -> None:
    """Wait for two polls; the second began after the call."""
    before = polls(server)
    wait_until(lambda: polls(server) >= before + 2)


def check(request_id: str) -> CancellationCheck:
    return CancellationCheck(request_id, os.getpid())


def test_a_stored_outcome_cancels_a_job_for_good(server: redis.Redis) -> None:
    running = check("r")
    polled(server)
    assert not running()
    store(server, "r")
    wait_until(running)
    server.flushall()
    other = check("other")
    polled(server)
    assert (running(), other()) == (True, False)


def test_only_the_cancelled_one_of_several_requests_is_flagged(server: redis.Redis) -> None:
    running = {name: check(name) for name in ("a", "b", "c")}
    store(server, "b")
    store(server, "another worker's")
    wait_until(running["b"])
    polled(server)
    assert [one() for one in running.values()] == [False, True, False]


def test_ended_and_cancelled_requests_are_not_polled(server: redis.Redis, use: Url) -> None:
    cancelled, ended, running = check("cancelled"), check("ended"), check("running")
    store(server, "cancelled")
    wait_until(cancelled)
    del ended
    with server.monitor() as monitor:
        seen = [monitor.next_command()["command"] for _ in range(5)]
    assert seen == [f"EXISTS {outcome_key('running')}"] * 5
    assert not running()


def test_looking_does_not_wait_for_a_redis_that_hangs(use: Url, server: redis.Redis) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        running = check("r")
        silent.settimeout(30)
        with silent.accept()[0] as asking:
            assert asking.recv(1) == b"*"  # the thread waits for an answer, which never comes
            assert not any(running() for _ in range(100_000))


def test_a_redis_that_refused_is_polled_again(server: redis.Redis) -> None:
    running = check("r")
    polled(server)
    server.acl_setuser("default", enabled=True, commands=["-exists"])
    try:
        wait_until(lambda: server.info("commandstats")["cmdstat_exists"]["rejected_calls"] >= 2)
    finally:
        server.acl_setuser("default", enabled=True, commands=["+exists"])
    assert not running()
    store(server, "r")
    wait_until(running)


def test_a_forked_process_watches_its_own_requests(server: redis.Redis) -> None:
    before = check("before the fork")
    polled(server)
    store(server, "r")
    forked = multiprocessing.get_context("fork")

    def child() -> None:
        wait_until(check("r"))

    process = forked.Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert not before()
