"""`llmi doctor`: findings after real requests, each with what to do."""

import json
import os
import signal
import subprocess
import sys

import pytest
import ray
import redis
import yaml
from fake_services import FakeServices
from waiting import until

from coordinator.check.doctor import machine, reach, run
from coordinator.check.doctor.finding import State
from coordinator.config.settings import ServiceConfig, check, load_services
from coordinator.host.redis_server import EmbeddedRedis
from llmi.demo.build import Parts
from llmi.demo.policy.build import policy_folder
from llmi.demo.prompts.corpus import write_dataset
from workers.broker.keys import worker_key
from workers.broker.registry import read_workers
from workers.settings import CodeSettings
from workers.storage.cache import CACHE_ENV

LLMI = [sys.executable, "-c", "from coordinator.cli.main import main; main()"]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in reach.VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server


def findings(config):
    return {(finding.area, finding.name): finding for finding in reach.examine(config)}


def config(**sections):
    return ServiceConfig.model_validate(sections)


def test_this_machine_passes_and_every_layer_of_the_jail_is_listed(tmp_path):
    found = list(machine.examine(tmp_path / "runs", CodeSettings()))
    assert [finding for finding in found if finding.state is State.FAIL] == []
    assert {finding.name for finding in found if finding.area == "jail"} == set(machine.LAYERS.values())


def test_missing_fonts_of_charts_are_named(monkeypatch):
    assert machine._fonts().state is State.OK
    monkeypatch.setattr("workers.sandbox.charts.fonts.PACKAGES", ("no_such_font_package",))
    found = machine._fonts()
    assert (found.state, "no-such-font-package" in found.detail) == (State.NOTE, True)
    assert "fonts-noto-cjk" in found.hint


def test_wrong_version_of_a_package_is_named_with_a_hint(tmp_path, monkeypatch):
    wanted = ["celery>=99", "no-such-thing", "other ; extra == 'x'"]
    monkeypatch.setattr(machine, "requires", lambda name: wanted)
    [packages] = machine._packages()
    assert packages.state is State.FAIL
    assert "wanted >=99; no-such-thing is missing" in packages.detail
    assert "ops/install.sh" in packages.hint


def test_a_proxy_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy.example.com:3128")
    monkeypatch.setenv("no_proxy", "")
    [proxy, pictures] = reach._proxies(config(tools={"search": {"provider": "serpapi"}}))
    assert (proxy.state, proxy.name) == (State.OK, "https proxy")
    assert "http://proxy.example.com:3128;" in proxy.detail
    assert "secret" not in str(proxy)
    assert "trust_proxy" in pictures.hint
    trusting = config(tools={"search": {"provider": "serpapi", "trust_proxy": True}})
    assert [finding.name for finding in reach._proxies(trusting)] == ["https proxy"]


def test_redis_answers_and_settings_that_risk_requests_are_noted(server):
    with redis.Redis.from_url(server.url) as client:
        client.config_set("appendonly", "no")
        client.config_set("maxmemory-policy", "allkeys-lru")
    found = findings(config(queue={"redis_url": server.url}))
    assert found["queue", "Redis"].state is State.OK
    assert found["queue", "persistence"].state is State.NOTE
    assert found["queue", "eviction"].state is State.FAIL
    assert "ops/start_workers.sh" in found["queue", "workers"].hint


def test_redis_that_does_not_answer_fails_without_showing_its_password(monkeypatch):
    monkeypatch.setenv("LLMI_REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    found = findings(config())
    assert found["queue", "Redis"].state is State.FAIL
    assert "hunter2" not in str(found)


def test_the_embedded_redis_counts_as_working_only_when_it_was_started(monkeypatch, tmp_path):
    assert findings(config())["queue", "Redis"].state is State.OK
    broken = tmp_path / "valkey-server"
    broken.write_text("#!/bin/sh\necho no such instruction\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("coordinator.host.redis_server._binary", lambda: broken)
    found = findings(config())["queue", "Redis"]
    assert found.state is State.FAIL
    assert "no such instruction" in found.detail


def test_ray_address_that_is_closed_fails(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    found = findings(config())["cluster", "Ray"]
    assert found.state is State.FAIL
    assert "ray start --head" in found.hint


def test_an_open_port_is_not_taken_for_ray(monkeypatch, server):
    monkeypatch.setattr(reach, "RAY_S", 5.0)
    monkeypatch.setenv("RAY_ADDRESS", server.url.removeprefix("redis://").removesuffix("/0"))
    assert findings(config())["cluster", "Ray"].state is State.FAIL


def test_a_ray_that_answers_is_found_by_address_and_by_auto(monkeypatch):
    ray.init(
        address="local", num_cpus=1, object_store_memory=80 * 1024**2, include_dashboard=False,
        log_to_driver=False, configure_logging=False,
    )  # fmt: skip
    try:
        for address in (ray.get_runtime_context().gcs_address, "auto"):
            monkeypatch.setenv("RAY_ADDRESS", address)
            # "auto" may take another one on this machine, of another test, which may be about to end.
            states = (findings(config())["cluster", "Ray"].state for _ in range(3))
            assert State.OK in states
    finally:
        ray.shutdown()


def test_a_judge_is_ok_only_after_a_verdict():
    verdict = {"message": {"content": json.dumps({"text": 4, "image_tags": 5})}, "finish_reason": "stop"}
    with FakeServices() as services:
        services.script["/v1/chat/completions"] = [(200, {}, {"choices": [verdict]})] * 2
        judge = {"provider": "openai", "base_url": f"{services.url}/v1", "model": "judge"}
        found = findings(config(judges={"text": judge, "image": judge}))
    assert found["judges", "text"].state is State.OK
    assert found["judges", "image"].state is State.FAIL  # it got the text judge's axes
    assert "ops/serve_judges.sh" in found["judges", "image"].hint


def test_a_configured_judge_of_criteria_is_probed(monkeypatch):
    rubric = {"provider": "openai", "api_key_env": "A_KEY"}
    assert "A_KEY" in findings(config(rubric=rubric))["judges", "criteria"].detail
    monkeypatch.setenv("A_KEY", "hunter2")
    with FakeServices() as services:
        found = findings(config(rubric={**rubric, "base_url": f"{services.url}/v1"}))
        assert found["judges", "criteria"].state is State.OK
        services.judge.status = 401
        found = findings(config(rubric={**rubric, "base_url": f"{services.url}/v1"}))
        assert found["judges", "criteria"].state is State.FAIL
    assert "hunter2" not in str(found)
    assert findings(config())["judges", "criteria"].state is State.OK  # by rules


def test_an_author_is_checked_only_when_configured(monkeypatch):
    assert not [area for area, _ in findings(config()) if area == "author"]
    author = {"provider": "openai", "model": "m"}
    assert "LLMI_AUTHOR_BASE_URL" in findings(config(author=author))["author", "openai"].detail
    monkeypatch.setenv("LLMI_AUTHOR_BASE_URL", "http://host:8000/v1")
    assert findings(config(author=author))["author", "openai"].state is State.OK


def test_folders_options_model_and_data_of_a_training_run_are_checked(tmp_path):
    train = {"steps": 1, "batch_size": 4, "n": 2}
    raw = {
        "train": {"model": str(tmp_path / "nowhere"), "rollout_is": None, **train},
        "data": {"train": [str(tmp_path / "none.parquet")]},
        "blobs": {"url": "/proc/llmi/blobs"},
    }
    found = {one.name: one for one in run.examine(check(raw, "run.yaml"), tmp_path / "runs" / "r")}
    assert {one.state for one in found.values()} == {State.FAIL}
    assert "blobs.url" in found["folders"].detail
    assert "train.rollout_is" in found["options of verl"].detail
    assert "config.json" in found["model"].detail
    assert "none.parquet" in found["data"].detail

    files = write_dataset(tmp_path / "prompts", seed=1, train=2, test=1)
    raw = raw | {"data": {"train": [str(files["train"])]}, "blobs": {"url": "blobs"}}
    raw["train"] = {"model": "owner/model", **train}
    states = [one.state for one in run.examine(check(raw, "run.yaml"), tmp_path / "runs" / "r")]
    assert states == [State.OK, State.OK, State.NOTE, State.OK]  # a hub id is left to the hub


@pytest.mark.parametrize(("name", "kind"), [("demo", "text"), ("demo_vl", "vl"), ("evaluate_demo", "vl")])
def test_built_and_unbuilt_parts_of_the_demo_are_distinguished(name, kind, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_ENV, str(tmp_path))

    def looked_at():
        settings = load_services(name)
        found = list(reach.examine(settings))
        if name != "evaluate_demo":
            found += run.examine(settings, tmp_path / "runs" / "r")
        return {(one.area, one.name): one for one in found if one.area in ("tools", "author", "run")}

    before = looked_at()
    assert State.FAIL not in {one.state for one in before.values()}
    notes = [one for one in before.values() if one.state is State.NOTE]
    assert {one.area for one in notes} == {"tools", "author" if name == "evaluate_demo" else "run"}
    assert all("not built" in one.detail and one.hint.startswith("llmi ") for one in notes)

    parts = Parts(tmp_path, kind, 1)
    write_dataset(parts.prompts, seed=1, train=2, test=2)
    for folder, file in (
        (policy_folder(kind, tmp_path, seed=1), "config.json"),
        (parts.library, "captions.jsonl"),
        (parts.image_model, "model_index.json"),
    ):
        folder.mkdir()
        (folder / file).write_text("{}")
    after = looked_at()
    assert {one.state for one in after.values()} == {State.OK}
    assert any(str(policy_folder(kind, tmp_path, seed=1)) in one.detail for one in after.values())


def test_keys_are_named_and_never_shown(monkeypatch):
    monkeypatch.setenv("SERP_API_KEY", "hunter2")
    found = findings(config(tools={"search": {"provider": "serpapi"}}))
    assert found["tools", "search"].state is State.OK
    assert "set: SERP_API_KEY; not set: " in found["environment", "variables"].detail
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(("search", "code"), [({"provider": "serpapi"}, 1), ({"library": "."}, 0)])
def test_the_command_exits_with_1_when_a_check_fails(tmp_path, search, code):
    (tmp_path / "captions.jsonl").write_text("{}\n")
    hub = {"model": "owner/model"}
    tools = {"search": search, "diffusion": hub, "edit": hub}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"tools": tools}))
    command = [*LLMI, "doctor", "--config", "c.yaml", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    answer = json.loads(done.stdout)
    assert answer["ready"] == (code == 0)
    assert any(finding["name"] == "search" for finding in answer["findings"])


async def test_the_clocks_of_workers_are_compared_with_that_of_redis(queue_settings, start_worker):
    worker = start_worker()

    def workers():
        return [one for one in read_workers(queue_settings.url) if one.clock_s is not None]

    await until(workers)
    found = findings(config(queue=queue_settings.model_dump()))
    assert found["queue", "clocks"].state is State.OK
    key = worker_key(f"{worker.name}@{worker.node}")
    os.kill(worker.pid, signal.SIGSTOP)  # it would write its offset again
    with redis.Redis.from_url(queue_settings.url) as client:
        client.persist(key)
        client.hset(key, "clock_s", "-61.000")
    found = findings(config(queue=queue_settings.model_dump()))
    wrong = found["queue", f"clock of {worker.node}"]
    assert (wrong.state, wrong.detail) == (State.NOTE, "-61.0 s against Redis")
    assert "synchronise" in wrong.hint
    assert ("queue", "clocks") not in found
