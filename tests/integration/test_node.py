"""A node joins the queues and leaves them, by the scripts that an operator calls, with real workers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from fake_services import png
from places import REPOSITORY
from waiting import until, wait_until

from coordinator.host.redis_server import EmbeddedRedis
from workers.broker.depths import read_depths
from workers.broker.registry import read_workers
from workers.client.client import QueueClient
from workers.messages import DiffusionPayload, Request
from workers.settings import QueueSettings

pytestmark = pytest.mark.long

OPS = REPOSITORY / "ops"
CALL_S = 90.0


class Painter(ThreadingHTTPServer):
    """An images endpoint that answers when `open` is set. `prompts`: those it received, in order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Paint)
        self.open = threading.Event()
        self.prompts: list[str] = []


class _Paint(BaseHTTPRequestHandler):
    server: Painter

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.prompts.append(body["prompt"])
        self.server.open.wait(CALL_S)
        answer = json.dumps({"data": [{"b64_json": base64.b64encode(png()).decode()}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def painter() -> Iterator[Painter]:
    with Painter() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.open.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def config(tmp_path: Path, painter: Painter, queue_settings: QueueSettings) -> Path:
    """One diffusion at a time, at the painter; short leases."""
    address = f"http://127.0.0.1:{painter.server_address[1]}/v1"
    endpoint = {"provider": "openai", "base_url": address, "model": "m/m", "size": "96x64", "api_key_env": "",
                "allow_private_addresses": True}  # fmt: skip
    document = {
        "queue": {"lease_s": queue_settings.lease_s},
        "blobs": {"url": str(tmp_path / "blobs")},
        "tools": {"diffusion": endpoint},
        "workers": {"pools": [{"queues": ["diffusion"], "concurrency": 1}]},
    }
    path = tmp_path / "node.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


class Node:
    """`start` and `stop` call the scripts."""

    def __init__(self, tmp_path: Path, url: str):
        self.mark, self.name = uuid.uuid4().hex, "alpha"
        self.state = tmp_path / "state"
        self._seen: set[psutil.Process] = set()
        unset = ("LLMI_REDIS_URL", "LLMI_CONFIG", "CUDA_VISIBLE_DEVICES")
        self.env = {name: value for name, value in os.environ.items() if name not in unset}
        self.env |= {"LLMI_STATE": str(self.state), "LLMI_TEST_MARK": self.mark, "LLMI_REDIS_URL": url}

    def start(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.call("start_workers.sh", *arguments)

    def stop(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.call("stop_workers.sh", *arguments)

    def call(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(OPS / script), "--node", self.name, "--json", *arguments]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=CALL_S)

    def joined(self, *arguments: str) -> dict[str, Any]:
        """The answer of a start that must succeed."""
        done = self.start(*arguments)
        assert done.returncode == 0, done.stderr
        assert len(self.left) > 2, "supervisor, worker and its process were to be seen"
        return json.loads(done.stdout)

    @property
    def left(self) -> list[psutil.Process]:
        """Every process of the node that lives: of its supervisor's family, as far as it was ever seen."""
        for file in self.state.glob("*/node.json"):
            pid = json.loads(file.read_text())["pid"]
            with contextlib.suppress(psutil.NoSuchProcess):
                if (supervisor := psutil.Process(pid)).environ().get("LLMI_TEST_MARK") == self.mark:
                    self._seen |= {supervisor, *supervisor.children(recursive=True)}
        return [process for process in self._seen if _lives(process)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def node(tmp_path: Path, queue_settings: QueueSettings) -> Iterator[Node]:
    node = Node(tmp_path, queue_settings.redis_url)
    yield node
    for process in node.left:
        process.kill()


def request(prompt: str) -> Request:
    return Request.make("diffusion", DiffusionPayload(prompt=prompt), timeout_s=60.0)


def phase(node: Node) -> str:
    return json.loads(next(node.state.glob("*/node.json")).read_text())["phase"]


def test_joining_and_leaving_twice_is_as_once(node, config, queue_settings):
    first = node.joined("--config", str(config), "--queues", "diffusion")
    again = node.joined("--queues", "diffusion")
    assert (first["started"], again["started"]) == (True, False)
    assert again["pid"] == first["pid"]
    [worker] = read_workers(queue_settings.url)
    assert (worker.node, worker.queues, worker.ready) == ("alpha", ("diffusion",), True)
    other = node.start("--queues", "diffusion", "--role", "cpu")
    assert other.returncode == 2
    assert "llmi workers stop" in other.stderr
    for was_running in (True, False):
        done = node.stop()
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["was_running"] == was_running
        assert node.left == []
    assert read_workers(queue_settings.url) == []


def test_the_redis_can_be_named_on_the_command_line(node, config, queue_settings):
    url = node.env.pop("LLMI_REDIS_URL")
    unnamed = node.start("--config", str(config), "--queues", "diffusion")
    assert unnamed.returncode == 2
    assert "give --redis" in unnamed.stderr
    first = node.joined("--redis", url, "--config", str(config), "--queues", "diffusion")
    assert first["started"]
    [worker] = read_workers(queue_settings.url)
    assert (worker.node, worker.queues, worker.ready) == ("alpha", ("diffusion",), True)
    assert node.joined("--redis", url, "--queues", "diffusion")["pid"] == first["pid"]
    assert json.loads(node.stop("--redis", url).stdout)["was_running"] is True
    assert node.left == []


async def test_two_calls_at_once_start_it_once(node, config):
    arguments = ("--config", str(config), "--queues", "diffusion")
    calls = await asyncio.gather(*(asyncio.to_thread(node.start, *arguments) for _ in range(2)))
    assert [call.returncode for call in calls] == [0, 0], [call.stderr for call in calls]
    answers = [json.loads(call.stdout) for call in calls]
    assert sorted(answer["started"] for answer in answers) == [False, True]
    assert answers[0]["pid"] == answers[1]["pid"]


async def test_leaving_finishes_what_runs_and_gives_back_the_rest(node, config, painter, queue_settings):
    node.joined("--config", str(config), "--queues", "diffusion")
    async with QueueClient(queue_settings) as client:
        running = await client.post(request("first"))
        await until(lambda: painter.prompts == ["first"])
        waiting = [await client.post(request(f"later {n}")) for n in range(2)]
        stopping = asyncio.create_task(asyncio.to_thread(node.stop))
        await until(lambda: phase(node) == "draining")
        assert not stopping.done(), "it did not wait for the job that runs"
        painter.open.set()
        done = await stopping
        assert done.returncode == 0, done.stderr
        assert (await running.outcome()).ok
        assert painter.prompts == ["first"]
        assert read_depths(queue_settings.url)["diffusion"].waiting == 2
        assert node.left == []
        node.joined("--queues", "diffusion")
        assert all([(await one.outcome()).ok for one in waiting])
    assert sorted(painter.prompts) == ["first", "later 0", "later 1"]


async def test_leaving_now_leaves_the_job_to_others(node, config, painter, queue_settings):
    node.joined("--config", str(config), "--queues", "diffusion")
    async with QueueClient(queue_settings) as client:
        posted = await client.post(request("first"))
        await until(lambda: painter.prompts == ["first"])
        done = node.stop("--now")
        assert done.returncode == 0, done.stderr
        assert node.left == []
        painter.open.set()
        node.joined("--queues", "diffusion")
        assert (await posted.outcome()).ok
    assert painter.prompts == ["first", "first"]


async def test_a_worker_that_is_killed_is_replaced(node, config, painter, queue_settings):
    painter.open.set()
    pid = node.joined("--config", str(config), "--queues", "diffusion")["pid"]
    [victim] = psutil.Process(pid).children()
    victim.kill()
    record = next(node.state.glob("*/node.json"))
    await until(lambda: json.loads(record.read_text())["restarts"] == 1)
    async with QueueClient(queue_settings) as client:
        outcome = await (await client.post(request("after"))).outcome()
    assert outcome.ok
    assert int(outcome.worker.rpartition(":")[2]) in {process.pid for process in node.left}


def test_nothing_outlives_a_supervisor_that_is_killed(node, config):
    pid = node.joined("--config", str(config), "--queues", "diffusion")["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: node.left == [])
    assert json.loads(node.stop().stdout)["was_running"] is False
    assert node.joined("--queues", "diffusion")["started"] is True


def test_ctrl_c_while_workers_start_leaves_nothing(node, config, queue_settings):
    command = [OPS / "start_workers.sh", "--node", "alpha", "--config", config, "--queues", "diffusion"]
    with subprocess.Popen(command, env=node.env, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        wait_until(lambda: node.left)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=CALL_S)
    assert process.returncode == 130, output
    assert node.left == []
    assert json.loads(node.stop().stdout)["was_running"] is False


def test_a_worker_that_does_not_come_up_is_explained_and_nothing_left(node, tmp_path):
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "captions.jsonl").write_text("{no json\n")
    bad = tmp_path / "bad.yaml"
    bad.write_text(yaml.safe_dump({"tools": {"search": {"library": str(tmp_path / "library")}}}))
    done = node.start("--config", str(bad), "--queues", "search")
    assert done.returncode == 1
    assert "captions.jsonl" in done.stderr
    assert node.left == []


def test_in_the_foreground_sigterm_drains_and_succeeds(node, config, queue_settings):
    command = [OPS / "start_workers.sh", "--node", "alpha", "--config", config, "--queues", "diffusion"]
    with subprocess.Popen(
        [*command, "--foreground"], env=node.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        wait_until(lambda: any(worker.ready for worker in read_workers(queue_settings.url)))
        assert node.start("--queues", "diffusion").returncode == 0
        process.terminate()
        output, _ = process.communicate(timeout=CALL_S)
    assert process.returncode == 0, output
    assert "finished what it ran" in output
    assert node.left == []


def test_the_password_of_redis_is_in_no_file_and_no_command_line(node, tmp_path, config):
    secret = uuid.uuid4().hex
    with EmbeddedRedis(tmp_path / "redis", password=secret) as server:
        node.env["LLMI_REDIS_URL"] = server.url.replace("redis://", f"redis://:{secret}@")
        answer = node.joined("--config", str(config), "--queues", "diffusion")
        assert len(node.left) > 2
        lines = [" ".join(process.cmdline()) for process in (*node.left, psutil.Process(server.pid))]
        texts = [path.read_text() for path in node.state.rglob("*") if path.is_file()]
        assert node.stop().returncode == 0
    assert not any(secret in text for text in (*lines, *texts, json.dumps(answer)))
    assert not any(path.stat().st_mode & 0o077 for path in node.state.glob("*"))


def test_workers_of_one_redis_work_by_the_same_settings(node, config, tmp_path):
    node.joined("--config", str(config), "--queues", "diffusion")
    changed = yaml.safe_load(config.read_text())
    changed["tools"]["diffusion"]["guidance"] = 1.0
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(changed))
    refused = node.start("--config", str(other), "--queues", "diffusion")
    assert refused.returncode == 2
    assert "workers on alpha use other tools" in refused.stderr
    assert node.start("--config", str(config), "--queues", "diffusion").returncode == 0
    assert node.stop().returncode == 0
    node.joined("--config", str(other), "--queues", "diffusion")
    assert node.joined("--queues", "diffusion")["started"] is False


DRIVER = """
NVMLError = RuntimeError
nvmlInit = nvmlShutdown = lambda: None
nvmlDeviceGetCount = lambda: 2
nvmlDeviceGetHandleByIndex = lambda index: index
nvmlDeviceGetUUID = lambda handle: f"GPU-{handle}"
nvmlDeviceGetName = lambda handle: "NVIDIA H100"
class nvmlDeviceGetMemoryInfo:
    def __init__(self, handle):
        self.total = 80 * 2**30
"""


def test_gpus_that_the_driver_shows_get_a_worker_each(node, tmp_path):
    (tmp_path / "simulated").mkdir()
    (tmp_path / "simulated" / "pynvml.py").write_text(DRIVER)
    node.env["PYTHONPATH"] = str(tmp_path / "simulated")
    config = tmp_path / "gpu.yaml"
    model = {"model": "owner/model", "size": "64x64"}
    config.write_text(yaml.safe_dump({"tools": {"diffusion": model, "edit": model}}))
    done = node.start("--config", str(config), "--role", "gpu", "--dry-run")
    assert done.returncode == 0, done.stderr
    [planned] = json.loads(done.stdout)["plan"]["pools"]
    assert planned["pool"]["queues"] == ["diffusion", "edit"]
    assert (planned["pool"]["low"], planned["devices"]) == (2, ["GPU-0", "GPU-1"])
    assert "NVIDIA H100 (81,920 MiB), NVIDIA H100 (81,920 MiB)" in done.stderr


def test_a_dry_run_starts_and_writes_nothing(node, config, queue_settings):
    done = node.start("--config", str(config), "--dry-run")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)["plan"]
    assert ["diffusion"] in [planned["pool"]["queues"] for planned in plan["pools"]]
    assert node.left == []
    assert not node.state.exists()
    assert node.start("--queues", "diffusion").returncode == 2, "nothing may have been published"
