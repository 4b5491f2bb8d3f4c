"""Flower and Prometheus, started for real by the scripts in ops/ on real workers with real load."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
import yaml
from conftest import StartWorker
from metrics_pages import get, get_json
from places import REPOSITORY
from queue_jobs import Order
from queue_requests import Notes, ask, request_for
from waiting import until

from coordinator.host.processes import MemoryWatch
from coordinator.scale.fleet import PoolState
from coordinator.watch.exporter import Exporter, RunState
from coordinator.watch.idle.report import IdleReport
from coordinator.watch.off_policy import MEASURES
from coordinator.watch.progress import Progress
from policy.ledger.writer import LedgerWriter
from workers.client.client import QueueClient
from workers.messages import HIGH, LOW, NORMAL
from workers.metrics.endpoint import announce, serve_process
from workers.metrics.telemetry import producer_metrics
from workers.settings import REDIS_ENV, MetricsSettings, QueueSettings

OPS = REPOSITORY / "ops"
START_S = 60.0
USER = "someone:secret"
SCRIPT = "<script>alert(1)<"  # no slash: it is the name of a file
HASHED = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"  # "secret", by bcrypt


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Launch = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Launch]:
    """`script(name, *arguments, **environment)` starts ops/<name>; its output lies in <name>.log."""
    started: list[subprocess.Popen[bytes]] = []

    def launch(name: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, "LLMI_CACHE": str(REPOSITORY / ".cache"), **environment}
        with (tmp_path / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(OPS / name), *arguments], env=env, cwd=tmp_path, stdout=log, stderr=log
            )
        started.append(process)
        return process

    yield launch
    for process in started:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def answers(process: subprocess.Popen[bytes], url: str, log: Path, user: str = "") -> None:
    """Returns when `url` answers. Fails with the log's end when its program ends instead."""

    def there() -> bool:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            get(url, user)
        except (URLError, OSError):
            return False
        return True

    await until(there, START_S)


async def test_flower_lists_workers_routes_and_tasks_with_their_causes(
    start_worker: StartWorker,
    client: QueueClient,
    queue_settings: QueueSettings,
    script: Launch,
    tmp_path: Path,
) -> None:
    worker = start_worker("code")
    url = f"http://127.0.0.1:{(port := free_port())}"
    arguments = ("--redis", queue_settings.url, "--port", str(port))
    flower = script("flower.sh", *arguments, FLOWER_BASIC_AUTH=USER)
    await answers(flower, f"{url}/api/workers", tmp_path / "flower.sh.log", USER)
    name = f"{worker.name}@{worker.node}"
    seen: dict[str, Any] = {}

    def tasks() -> list[dict[str, Any]]:
        seen.update(get_json(f"{url}/api/tasks", USER))
        return list(seen.values())

    async def finished() -> None:
        while not {"SUCCESS", "FAILURE"} <= {task["state"] for task in tasks()}:
            await asyncio.gather(ask(client, Order(seconds=0.1)), ask(client, Order(act="fail_model")))

    await asyncio.wait_for(finished(), START_S)  # until Flower has asked the worker for events
    done = next(task for task in seen.values() if task["state"] == "SUCCESS")
    failed = next(task for task in seen.values() if task["state"] == "FAILURE")
    for task in (done, failed):
        assert (task["name"], task["routing_key"], task["worker"]) == ("llmi.code", "code", name)
    assert done["args"].startswith("act='answer', seconds=0.1")
    assert done["result"].startswith("seed 0, pid ")
    assert failed["exception"] == "no_hit: nothing found"
    odd = request_for(Order(notes=f"/nowhere/{SCRIPT}"))
    assert not (await (await client.post(odd)).outcome()).ok
    await until(lambda: b"FileNotFoundError" in get(f"{url}/task/{odd.request_id}", USER), START_S)
    shown = get(f"{url}/task/{odd.request_id}", USER).decode()
    assert shown.count("&lt;script&gt;alert") >= 2, "what was asked, and what came of it"
    assert "<script>alert" not in shown
    workers = get_json(f"{url}/api/workers?refresh=1", USER)
    assert [queue["name"] for queue in workers[name]["active_queues"]] == ["code"]
    assert workers[name]["stats"]["pool"]["max-concurrency"] == 1


async def test_flower_shows_the_true_lengths_of_the_queues(
    client: QueueClient,
    start_worker: StartWorker,
    queue_settings: QueueSettings,
    script: Launch,
    tmp_path: Path,
    notes: Notes,
) -> None:
    """Requests of every priority count, and running ones do not."""
    worker = start_worker("code")
    running = await client.post(request_for(notes.order(seconds=60.0)))
    await notes.started()
    for priority, count in ((HIGH, 1), (NORMAL, 2), (LOW, 3)):
        for _ in range(count):
            waiting = request_for(Order()).model_copy(update={"priority": priority})
            await client.post(waiting)
    url = f"http://127.0.0.1:{(port := free_port())}"
    arguments = ("--redis", queue_settings.url, "--port", str(port))
    flower = script("flower.sh", *arguments, FLOWER_BASIC_AUTH=USER)
    await answers(flower, f"{url}/api/workers", tmp_path / "flower.sh.log", USER)

    def lengths() -> dict[str, int]:
        queues = get_json(f"{url}/api/queues/length", USER)["active_queues"]
        return {queue["name"]: queue["messages"] for queue in queues}

    get_json(f"{url}/api/workers?refresh=1", USER)  # which queues there are
    await until(lambda: lengths() == {"code": 6}, START_S)
    page = get(f"{url}/broker", USER).decode()
    assert re.search(r"<td>code</td>\s*<td[^>]*>(<[^>]+>)*6<", page)
    await client.cancel(running.request.request_id)
    await until(lambda: lengths() == {"code": 0}, START_S)
    assert worker.alive


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--redis", "redis://127.0.0.1:1", "--host", "0.0.0.0"), "set FLOWER_BASIC_AUTH=user:password"),
        ((), "set LLMI_REDIS_URL"),
        (("nowhere",), "nowhere/endpoints.json does not exist"),
        (("--bad",), "no option --bad"),
        (("--port",), "--port needs a value"),
    ],
)
def test_flower_says_what_is_missing(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name not in (REDIS_ENV, "FLOWER_BASIC_AUTH")}
    command = [str(OPS / "flower.sh"), *arguments]
    ended = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert says in ended.stderr


def board() -> list[tuple[str, str]]:
    """Every query of the Grafana board, with its panel's title; its variable interval made a fixed one."""
    panels = json.loads((OPS / "grafana" / "llmi.json").read_text())["panels"]
    return [
        (panel["title"], target["expr"].replace("$__rate_interval", "30s"))
        for panel in panels
        for target in panel.get("targets", ())
    ]


def alerts() -> list[tuple[str, str]]:
    groups = yaml.safe_load((OPS / "prometheus" / "alerts.yml").read_text())["groups"]
    return [(rule["alert"], rule["expr"]) for group in groups for rule in group["rules"]]


@pytest.fixture
async def producing(queue_settings: QueueSettings) -> AsyncIterator[QueueClient]:
    """A client whose requests are counted as a rollout process counts them, and served."""
    metrics = producer_metrics()
    target = serve_process(MetricsSettings(), queue_settings, {"role": "producer", "process": "test"})
    beating = asyncio.create_task(announce(target, queue_settings))
    async with QueueClient(queue_settings, on_posted=metrics.posted, on_outcome=metrics.ended) as client:
        with metrics.rollout():
            yield client
    beating.cancel()


@pytest.fixture
def run_folder(tmp_path: Path, queue_settings: QueueSettings) -> Iterator[Path]:
    """A run's folder whose endpoints.json names a live exporter."""
    run = tmp_path / "run"
    run.mkdir()
    data = {
        "critic/score/mean": 0.5,
        "timing_s/gen": 1.0,
        "timing_s/step": 4.0,
        **{measure.metric: 0.5 for measure in MEASURES},
    }
    (run / "metrics.jsonl").write_text(json.dumps({"step": 3, "data": data}) + "\n")
    ledger = LedgerWriter(run, "rollout")
    ledger.rollout_ended("a_0", "masked")
    ledger.close()
    progress = Progress(run)
    progress.update()
    progress.idle = IdleReport({"queue diffusion": 3.0}, {"generation": 1.0}, 8.0)
    pools = {"code": PoolState(wanted=1, ready=1)}
    with Exporter(MetricsSettings()) as exporter, MemoryWatch() as memory:
        exporter.watch(queue_settings, "run", RunState(progress, memory, lambda: pools))
        exporter.write(run)
        yield run


async def there(process: subprocess.Popen[bytes], url: str, log: Path, user: str = "") -> None:
    """Returns when Prometheus answers; skips where none can be had."""
    try:
        await answers(process, f"{url}/-/ready", log, user)
    except AssertionError:
        if process.poll() == 2:
            pytest.skip(log.read_text().strip())
        raise


@pytest.fixture
async def prometheus(script: Launch, run_folder: Path, tmp_path: Path) -> str:
    """The address of a Prometheus that looks twice a second."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    process = script("prometheus.sh", str(run_folder), "--port", str(port), "--every", "500ms")
    await there(process, url, tmp_path / "prometheus.sh.log")
    return url


async def test_prometheus_beyond_loopback_asks_for_its_password(
    script: Launch, run_folder: Path, tmp_path: Path
) -> None:
    web = tmp_path / "web.yml"
    web.write_text(
        "basic_auth_users:\n  someone: $2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
    )
    url = f"http://127.0.0.1:{(port := free_port())}"
    options = ("--port", str(port), "--host", "0.0.0.0", "--web-config", str(web))
    process = script("prometheus.sh", str(run_folder), *options)
    await there(process, url, tmp_path / "prometheus.sh.log", USER)
    with pytest.raises(HTTPError, match="401"):
        get(f"{url}/api/v1/targets")


def query(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """The result of an instant query. Fails when it does not parse."""
    answer = get_json(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    assert answer["status"] == "success", answer
    return answer["data"]["result"]


def total(prometheus: str, expression: str) -> float:
    return sum(float(series["value"][1]) for series in query(prometheus, expression))


COUNTED = 'sum by (result, process) (llmi_task_outcomes_total{kind="code"})'


async def test_every_query_of_board_and_alerts_runs_on_what_prometheus_has_seen(
    start_worker: StartWorker, producing: QueueClient, prometheus: str
) -> None:
    worker = start_worker("code")
    start_worker("search", 4)
    found = f"{prometheus}/api/v1/targets?state=active"

    def up() -> bool:
        active = get_json(found)["data"]["activeTargets"]
        return sorted(t["labels"]["role"] for t in active if t["health"] == "up") == [
            "coordinator",
            "producer",
            "worker",
            "worker",
        ]

    await until(up, START_S)
    acts = ["answer"] * 4 + ["fail_model", "fail_infrastructure"]
    for done in (len(acts), 2 * len(acts)):  # a rate needs to see a cause twice
        for act in acts:
            await ask(producing, Order(act=act, seconds=0.05), "code")
            await ask(producing, Order(act=act, seconds=0.05), "search")
        await until(lambda: total(prometheus, COUNTED) == done)  # noqa: B023 - ends in this round
    by_result = {
        series["metric"]["result"]: float(series["value"][1]) for series in query(prometheus, COUNTED)
    }
    assert by_result == {"success": 8, "model": 2, "infrastructure": 2}
    assert {series["metric"]["process"] for series in query(prometheus, COUNTED)} == {worker.name}

    await until(lambda: not {title for title, expression in board() if not query(prometheus, expression)})
    known = set(get_json(f"{prometheus}/api/v1/label/__name__/values")["data"])
    for title, expression in [*board(), *alerts()]:
        query(prometheus, expression)
        names = set(re.findall(r"llmi_\w+", expression))
        assert names, title
        assert names <= known, title
    rules = get_json(f"{prometheus}/api/v1/rules")["data"]["groups"][0]["rules"]
    assert {rule["name"] for rule in rules} == {name for name, _ in alerts()}


async def test_a_backlog_without_workers_raises_an_alert(
    client: QueueClient, prometheus: str, start_worker: StartWorker
) -> None:
    waiting = asyncio.create_task(ask(client, Order(), "edit", timeout_s=20.0))
    rule = dict(alerts())["QueueWithoutWorkers"]
    await until(lambda: [series["metric"]["queue"] for series in query(prometheus, rule)] == ["edit"])
    waiting.cancel()
