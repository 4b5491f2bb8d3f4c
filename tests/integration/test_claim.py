"""One run for each Redis database, and its configuration there for workers that join."""

import pytest
from places import SUPPORT

from coordinator.check import services
from coordinator.config.settings import ServiceConfig
from coordinator.host.redis_server import EmbeddedRedis
from coordinator.state import claim
from coordinator.state.claim import Claim
from workers.errors import ConfigError, InfrastructureFault
from workers.process.worker import WorkerProcess
from workers.redis_client import connect_redis
from workers.settings import QueueSettings, SearchSettings, ToolSettings


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.delenv("LLMI_REDIS_URL", raising=False)
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield ServiceConfig(name="mine", queue=QueueSettings(redis_url=server.url))


def test_a_second_run_is_refused_until_the_first_releases_its_claim(config):
    first, second = Claim(config), Claim(config.model_copy(update={"name": "other"}))
    first.acquire()
    with pytest.raises(ConfigError, match=r"the run 'mine'.*another one"):
        second.acquire()
    first.release()
    second.acquire()
    assert "'other'" in claim.conflict(config.queue)


def test_a_claim_expires_unless_it_is_renewed(config, monkeypatch):
    monkeypatch.setattr(claim, "CLAIM_S", 0.5)
    living = Claim(config)
    living.acquire()
    with connect_redis(config.queue.url) as client:
        monkeypatch.setattr(claim, "CLAIM_S", 30.0)
        living._renewed = 0.0
        living.renew()
        assert client.pttl(claim.RUN_KEY) > 1000
        client.delete(claim.RUN_KEY)  # ran out while this process was suspended
        living._renewed = 0.0
        living.renew()
    assert "'mine'" in claim.conflict(config.queue)


def test_preflight_names_the_run_that_holds_the_claim(config):
    assert services.claimed(config.queue) == []
    Claim(config).acquire()
    [problem] = services.claimed(config.queue)
    assert "'mine'" in problem


def test_a_release_keeps_the_claim_of_another_run(config):
    first = Claim(config)
    first.acquire()
    with connect_redis(config.queue.url) as client:
        client.set(claim.RUN_KEY, '{"name": "other", "host": "h", "pid": 1}')
    first.release()
    assert "'other'" in claim.conflict(config.queue)


def test_workers_that_join_find_the_configuration(config):
    assert claim.published(config.queue) is None
    Claim(config).acquire()
    assert ServiceConfig.model_validate(claim.published(config.queue)) == config


def test_workers_with_other_settings_are_refused(config, tmp_path, monkeypatch):
    other = config.model_copy(update={"tools": ToolSettings(search=SearchSettings(library="another"))})
    file = tmp_path / "config.json"
    file.write_text(other.model_dump_json())
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    worker = WorkerProcess(["search"], file, 1, tmp_path / "log", "joined", app="queue_app", node="node-a")
    worker.start()
    try:
        worker.wait_ready(60)
        with pytest.raises(ConfigError, match=r"1 workers \(on node-a\).*other tools"):
            Claim(config).acquire()
        assert claim.conflict(config.queue) == ""
        Claim(other).acquire()
    finally:
        worker.kill()


def test_a_run_that_lost_its_claim_ends_and_names_the_other_run(config):
    """Regression: the run continued, and two runs received each other's requests."""
    first, second = Claim(config), Claim(config.model_copy(update={"name": "other"}))
    first.acquire()
    with connect_redis(config.queue.url) as client:
        client.delete(claim.RUN_KEY)  # ran out while this process was suspended
    second.acquire()
    first._renewed = 0.0
    with pytest.raises(InfrastructureFault, match=r"lost its claim; .*'other'"):
        first.renew()
