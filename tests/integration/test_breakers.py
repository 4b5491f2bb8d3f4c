"""The state of a circuit breaker in a real Redis: shared by all processes, changed by one at a time."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from fake_services import KEY, FakeServices
from waiting import wait_until

from workers import jobs
from workers.broker import breakers
from workers.broker.breakers import ProviderBreaker, fetch_breakers
from workers.celery_app import execution
from workers.errors import Cause
from workers.messages import Failure, Outcome, Request, SearchPayload, Success
from workers.settings import CONFIG_ENV, REDIS_ENV, BreakerSettings, QueueSettings
from workers.storage.blobs import BlobStore

SERVICE = "serpapi at serpapi.com"
SETTINGS = BreakerSettings(failures=8, open_s=0.05, max_open_s=0.05)


@pytest.fixture
def server(queue_settings: QueueSettings):
    with redis.Redis.from_url(queue_settings.url) as client:
        yield client


@pytest.fixture
def breaker(server: redis.Redis) -> ProviderBreaker:
    return ProviderBreaker(server, "search", SERVICE, SETTINGS)


def request() -> Request:
    return Request.make("search", SearchPayload(query="q"), timeout_s=60.0)


def outcome(cause: Cause | None, request_id: str = "r") -> Outcome:
    result = Success() if cause is None else Failure(cause=cause, detail="503", provider="serpapi")
    return Outcome(request_id=request_id, kind="search", result=result)


def open_up(breaker: ProviderBreaker, server: redis.Redis) -> None:
    """Open the circuit and wait until it is half-open."""
    for _ in range(SETTINGS.failures):
        breaker.record(outcome(Cause.PROVIDER_DOWN))
    assert fetch_breakers(server).outages
    wait_until(lambda: fetch_breakers(server).admits("search", SERVICE), every_s=0.005)


def test_concurrent_failures_are_all_counted(breaker, server) -> None:
    with ThreadPoolExecutor(SETTINGS.failures) as many:
        list(many.map(breaker.record, [outcome(Cause.PROVIDER_DOWN)] * SETTINGS.failures))
    [down] = fetch_breakers(server).outages
    assert (down.kind, down.provider, down.why) == ("search", SERVICE, "provider_down: 503")
    assert down.since <= down.failed <= fetch_breakers(server).now


def test_of_concurrent_requests_one_is_the_trial(breaker, server) -> None:
    open_up(breaker, server)
    with ThreadPoolExecutor(16) as many:
        kept = list(many.map(breaker.admit, [request() for _ in range(16)]))
    assert kept.count(None) == 1


def test_an_answer_removes_the_stored_state(breaker, server) -> None:
    open_up(breaker, server)
    trial = request()
    assert breaker.admit(trial) is None
    assert breaker.record(outcome(None, trial.request_id)) is None
    assert server.hlen(breakers.KEY) == 0


def test_a_failed_request_may_wait_unless_it_was_the_trial(breaker, server) -> None:
    open_up(breaker, server)
    trial = request()
    breaker.admit(trial)
    assert breaker.record(outcome(Cause.PROVIDER_DOWN)) is not None
    assert breaker.record(outcome(Cause.PROVIDER_DOWN, trial.request_id)) is None


def test_an_invalid_state_counts_as_closed(breaker, server) -> None:
    server.hset(breakers.KEY, f"search {SERVICE}", '{"of": "another version"}')
    assert breaker.admit(request()) is None
    assert fetch_breakers(server).outages == []
    breaker.record(outcome(Cause.AUTH))
    assert next(iter(fetch_breakers(server).states.values())).failures == 1


def test_a_redis_that_is_down_keeps_no_request_from_running() -> None:
    nowhere = redis.Redis(port=1)
    breaker = ProviderBreaker(nowhere, "search", SERVICE, SETTINGS)
    assert breaker.admit(request()) is None
    assert breaker.record(outcome(Cause.AUTH)) is None


@pytest.fixture
def asked(server, queue_settings: QueueSettings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """This process runs searches with an open circuit; returns the ids of those that ran."""
    ran: list[str] = []

    def search(payload: SearchPayload, context: jobs.JobContext) -> Success:
        ran.append(context.request.request_id)
        return Success()

    monkeypatch.setenv(REDIS_ENV, queue_settings.url)
    monkeypatch.setattr(execution, "REQUEUE_DELAY_S", 0.0)
    monkeypatch.setattr(execution, "_redis", lambda pid: server)
    searching = jobs.Job("search", SearchPayload, search, provider=lambda: SERVICE)
    monkeypatch.setattr(jobs, "JOBS", {"search": searching})
    breaker = ProviderBreaker(server, "search", SERVICE, BreakerSettings(failures=1))
    breaker.record(outcome(Cause.PROVIDER_DOWN))
    return ran


def test_a_request_goes_back_while_the_circuit_is_open(asked) -> None:
    """`tests/integration/test_worker_slots.py` shows that this counts as no attempt."""
    held = request()
    with pytest.raises(execution.Requeued, match="has been failing since"):
        execution.handle(held.request_id, "search", (held.model_dump(mode="json"),))
    assert asked == []


@pytest.fixture
def searching(server, queue_settings: QueueSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run `times` searches in this process with a provider that answers; returns how they ended."""
    monkeypatch.setenv("SERP_API_KEY", KEY)
    monkeypatch.setenv(REDIS_ENV, queue_settings.url)
    monkeypatch.setattr(execution, "_redis", lambda pid: server)
    monkeypatch.setattr(execution, "_blobs", lambda: BlobStore(str(tmp_path / "blobs")))
    jobs.load_jobs()
    with FakeServices() as services:
        found = {"provider": "serpapi", "base_url": services.url, "allow_private_addresses": True}
        impatient = {"failures": 1, "open_s": 60, "hang_s": 0}
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"tools": {"search": found}, "queue": {"breaker": impatient}}))
        monkeypatch.setenv(CONFIG_ENV, str(config))

        def search(*urls: str, times: int = 5, seconds: float = 30.0) -> list[Outcome]:
            services.results = [{"title": "q", "original": url.format(services=services.url)} for url in urls]
            return [ended(seconds) for _ in range(times)]

        def ended(seconds: float) -> Outcome:
            one = Request.make("search", SearchPayload(query="q"), timeout_s=seconds)
            return execution.handle(one.request_id, "search", (one.model_dump(mode="json"),))

        yield search


@pytest.mark.parametrize(
    ("url", "seconds", "cause"),
    [
        ("http://127.0.0.1:9/fox.png", 30.0, Cause.HOST_DOWN),
        ("http://no.such.host.invalid/fox.png", 30.0, Cause.HOST_DOWN),
        ("{services}/gone.png", 30.0, Cause.BAD_ANSWER),
        ("{services}/broken.png", 30.0, Cause.BAD_ANSWER),
        ("{services}/slow.png", 0.5, Cause.HOST_DOWN),  # until the deadline
    ],
)
def test_failing_image_hosts_do_not_open_the_circuit_of_the_search_provider(
    searching, server, url, seconds, cause
) -> None:
    ended = searching(url, seconds=seconds)
    assert {one.result.cause for one in ended} == {cause}
    assert server.hlen(breakers.KEY) == 0


def test_a_search_provider_that_answers_closes_its_circuit_whatever_the_hosts_do(searching, server) -> None:
    service = jobs.provider_of("search")
    breaker = ProviderBreaker(server, "search", service, BreakerSettings(failures=1, open_s=0.01))
    breaker.record(outcome(Cause.PROVIDER_DOWN))
    wait_until(lambda: fetch_breakers(server).admits("search", service), every_s=0.005)
    searching("http://127.0.0.1:9/fox.png", times=1)
    assert server.hlen(breakers.KEY) == 0


def test_an_expired_request_is_not_requeued(asked, server) -> None:
    late = Request.make("search", SearchPayload(query="q"), timeout_s=-1.0)
    ended = execution.handle(late.request_id, "search", (late.model_dump(mode="json"),))
    assert isinstance(ended.result, Failure)
    assert ended.result.cause is Cause.TIMEOUT
