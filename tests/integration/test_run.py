"""The services of a run are stopped however it ends."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from places import SUPPORT
from waiting import wait_until

from coordinator.check import preflight
from coordinator.config.settings import load
from coordinator.host.ray_cluster import AUTH_ENV
from coordinator.host.signals import StopSignals
from coordinator.run.services import Services
from coordinator.run.trainer import Trainer, TrainerDied
from coordinator.state import claim
from coordinator.state.claim import Claim
from policy.document import Task
from policy.ledger.reader import read_ledger
from policy.ledger.writer import LedgerWriter
from workers.client import blocking as submit
from workers.errors import Cause, ConfigError
from workers.messages import Request, SearchPayload
from workers.process.worker import WorkerProcess
from workers.redis_client import connect_redis
from workers.settings import QueueSettings

START_S = 90.0
# What a worker was started as, and the title that Celery may give it later.
WORKER = ("workers.process.program", "celeryd")
STOP_S = 60.0


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for one in processes:
        try:
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
        except psutil.NoSuchProcess:
            continue
    return found


def until_training(process: subprocess.Popen[str], tmp_path: Path) -> None:
    started = tmp_path / "runs" / "run" / "started"
    wait_until(lambda: started.exists() or process.poll() is not None, START_S)
    assert started.exists(), process.communicate()[0]


def until_all_runs(process: subprocess.Popen[str], tmp_path: Path, own_ray: bool) -> list[psutil.Process]:
    """Wait until Redis, the worker, the trainer and, if wanted, Ray run. Returns all descendants."""
    until_training(process, tmp_path)
    wanted = [("valkey-server",), WORKER, *([("raylet",), ("ray::Host",)] if own_ray else [])]
    below: list[psutil.Process] = []

    def complete() -> bool:
        below[:] = psutil.Process(process.pid).children(recursive=True)
        names = " ".join(" ".join(one.cmdline()) for one in alive(below))
        return all(any(part in names for part in one) for one in wanted)

    wait_until(complete, START_S)
    return below


def marked(mark: Path) -> list[psutil.Process]:
    """Every living process that inherited `mark` in its environment, or works beside or in that folder: a
    Celery worker writes its title over its environment.
    """
    found = []
    for process in psutil.process_iter():
        try:
            inherited = process.environ().get("LLMI_TEST_MARK") == str(mark)
            if (
                inherited or Path(process.cwd()).is_relative_to(mark.parent)
            ) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run with one worker process for the queues that need no model."""
    library = tmp_path / "library"
    library.mkdir()
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(out, "PNG")
    (library / "a.png").write_bytes(out.getvalue())
    (library / "captions.jsonl").write_text(json.dumps({"file": "a.png", "caption": "a teal square"}) + "\n")
    info = {"image_num": 0, "tools": ["search"], "question": "Write.", "split": "train"}
    row = {"prompt": "Write.", "data_source": "interleaved", "extra_info": info}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "train.parquet")
    document = {
        "name": "run",
        "train": {
            "model": "owner/tiny", "device": "cpu", "mode": "sync", "steps": 1, "tensor_parallel": 1,
            "sequence_parallel": 1, "trainer_gpus": 1, "prompt_tokens": 32, "response_tokens": 32,
        },
        "data": {"train": [str(tmp_path / "train.parquet")]},
        "tools": {
            "search": {"library": str(library)},
            "diffusion": {"model": "owner/unused", "size": "64x64"},
            "edit": {"model": "owner/unused", "size": "64x64"},
        },
        "workers": {"pools": [{"queues": ["search"], "concurrency": 2}]},
        "ray": {"num_cpus": 2, "object_store_mb": 100},
    }  # fmt: skip
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def start(config: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start(trainer, own_ray=False, resume=False)` begins the run, or goes on with it; whatever the test
    leaves is killed after it.
    """
    mark = tmp_path / "work"
    mark.mkdir()
    started: list[subprocess.Popen[str]] = []

    def run(trainer: str, own_ray: bool = False, resume: bool = False) -> subprocess.Popen[str]:
        unset = ("LLMI_REDIS_URL", "LLMI_CONFIG", "RAY_ADDRESS")
        env = {name: value for name, value in os.environ.items() if name not in unset}
        env |= {"PYTHONPATH": str(SUPPORT), "LLMI_TEST_MARK": str(mark)}
        if not own_ray:
            env["LLMI_TEST_RAY"] = "127.0.0.1:1"  # only the trainer would connect
        command = [
            sys.executable,
            str(SUPPORT / "run_script.py"),
            str(config),
            str(tmp_path / "runs"),
            trainer,
        ]
        command += ["resume"] if resume else []
        process = subprocess.Popen(
            command, cwd=mark, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    run.mark = mark  # type: ignore[attr-defined]
    yield run
    for process in marked(mark):
        process.kill()
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(("sign", "own_ray"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_signal_ends_everything_that_was_started(start, tmp_path, sign, own_ray):
    process = start("trainer_stub", own_ray=own_ray)
    below = until_all_runs(process, tmp_path, own_ray)
    titles = [" ".join(one.cmdline()) for one in marked(start.mark)]
    assert any(part in title for title in titles for part in WORKER)
    process.send_signal(sign)
    output, _ = process.communicate(timeout=STOP_S)
    assert process.returncode == 128 + sign, output
    assert alive(below) + marked(start.mark) == []
    assert json.loads((tmp_path / "runs" / "run" / "summary.json").read_text())["steps"] == 1


@pytest.mark.parametrize("own_ray", [True, False])
def test_a_killed_coordinator_leaves_no_process(start, tmp_path, own_ray):
    process = start("trainer_stub", own_ray=own_ray)
    # The one that cut itself loose from its trainer is then beyond anyone's reach; Ray's two agents look for
    # their cluster for a minute before they end.
    later = ("setsid", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
    below = until_all_runs(process, tmp_path, own_ray)
    below = [one for one in below if not any(name in " ".join(one.cmdline()) for name in later)]
    process.kill()
    process.communicate()
    wait_until(lambda: not alive(below), STOP_S)


def test_a_run_that_succeeds_leaves_its_report_and_no_process(start, tmp_path):
    process = start("trainer_stub_ok")
    output, _ = process.communicate(timeout=START_S)
    assert process.returncode == 0, output
    summary = json.loads(output.splitlines()[-1])
    assert (summary["steps"], summary["trainer_idle_ratio"], summary["lost"]) == (1, 0.25, 0)
    assert summary["peak_rss_bytes"] > 50_000_000
    run = tmp_path / "runs" / "run"
    for name in (
        "config.json",
        "config.yaml",
        "metrics.jsonl",
        "summary.json",
        "index.html",
        "logs/trainer.log",
    ):
        assert (run / name).exists(), name
    assert marked(start.mark) == []


def test_files_in_the_working_directory_do_not_affect_a_run(start, tmp_path, monkeypatch):
    """Modules in the working directory, a HOME that takes nothing, a TMPDIR too long for sockets, a locale
    without UTF-8, the backend of a notebook.
    """
    for name in ("verl", "torch", "workers"):
        (start.mark / name).mkdir()
        (start.mark / name / "__init__.py").write_text("raise SystemExit('from the working directory')\n")
    for name in ("celery", "redis", "signal", "ctypes"):
        (start.mark / f"{name}.py").write_text("raise SystemExit('from the working directory')\n")
    long = tmp_path / ("t" * 70)
    long.mkdir()
    for name, value in {
        "HOME": "/",
        "TMPDIR": str(long),
        "LC_ALL": "C",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }.items():
        monkeypatch.setenv(name, value)
    for name in AUTH_ENV:  # a test before may have started a Ray in this process
        monkeypatch.delenv(name, raising=False)
    process = start("trainer_stub_ray", own_ray=True)
    output, _ = process.communicate(timeout=START_S)
    assert process.returncode == 0, output
    assert (tmp_path / "runs" / "run" / "index.html").exists()
    assert list(long.glob("ray/session_*")), "Ray's files lie where TMPDIR says"
    assert marked(start.mark) == []


def test_a_run_can_be_repeated_from_its_saved_configuration(start, config, tmp_path, monkeypatch):
    monkeypatch.delenv("LLMI_REDIS_URL", raising=False)
    process = start("trainer_stub_ok")
    output, _ = process.communicate(timeout=START_S)
    assert process.returncode == 0, output
    run = tmp_path / "runs" / "run"
    live = json.loads((run / "config.json").read_text())  # what its workers went by
    assert live["queue"]["redis_url"] != QueueSettings().redis_url
    assert live["blobs"]["url"] == str(run / "blobs")
    again = load(run / "config.yaml", {"name": "again"})
    assert not again.external_redis
    assert again.model_copy(update={"name": "run"}) == load(config)
    preflight.check(again, tmp_path / "runs" / "again")


def test_a_failed_trainer_is_reported_with_the_end_of_its_log(start):
    process = start("trainer_stub_bad")
    output, _ = process.communicate(timeout=START_S)
    assert process.returncode == 1
    assert "RuntimeError: the weights are gone" in output
    assert "trainer.log" in output
    assert marked(start.mark) == []


def test_a_trainer_that_fails_in_a_ray_task_is_reported_with_its_exception(start):
    process = start("trainer_stub_ray_bad", own_ray=True)
    output, _ = process.communicate(timeout=START_S)
    assert process.returncode == 1
    assert "the trainer ended with exit code 1: ValueError: the weights are gone" in output
    assert "ZeroDivisionError" not in output


def test_a_worker_that_cannot_start_ends_the_run_with_the_reason(start, tmp_path):
    (tmp_path / "library" / "captions.jsonl").write_text("no JSON\n")
    process = start("trainer_stub")
    output, _ = process.communicate(timeout=START_S)
    assert process.returncode == 1
    assert "worker search-1 ended while starting" in output
    assert "captions.jsonl, line 1: Invalid JSON" in output
    assert marked(start.mark) == []


def test_a_run_publishes_its_configuration_and_releases_its_claim(start, config, tmp_path, queue_settings):
    document = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**document, "queue": {"redis_url": queue_settings.redis_url}}))
    process = start("trainer_stub")
    until_training(process, tmp_path)
    assert "the run 'run'" in claim.conflict(queue_settings)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=STOP_S)
    assert claim.conflict(queue_settings) == ""
    published = claim.published(queue_settings)
    assert published["workers"]["pools"][0]["queues"] == ["search"]


def test_a_run_is_resumed_on_a_redis_with_a_worker_that_survived_it(start, config, tmp_path, queue_settings):
    document = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**document, "queue": {"redis_url": queue_settings.redis_url}}))
    run = tmp_path / "runs" / "run"
    dying = start("trainer_stub")
    until_training(dying, tmp_path)
    joined = WorkerProcess(["search"], run / "config.json", 1, tmp_path / "log", "joined", node="elsewhere")
    joined.start()
    try:
        joined.wait_ready(START_S)
        request = Request.make("search", SearchPayload(query="teal"), timeout_s=600, owner="u_0")
        half = LedgerWriter(run, "rollout")
        half.started("u_0", Task(question="q"))
        half.posted(request)
        half.close()
        dying.kill()
        dying.communicate()
        output, _ = start("trainer_stub_ok", resume=True).communicate(timeout=START_S)
        assert "resuming after step 0" in output
        assert json.loads(output.splitlines()[-1])["steps"] == 1
        assert joined.alive
    finally:
        joined.kill()
    with connect_redis(queue_settings.url) as client:
        [outcome] = submit.outcomes(client, [request.request_id]).values()
    assert outcome.result.cause is Cause.CANCELLED  # no worker starts a request without a client
    ledger = read_ledger(run)
    assert ledger.rollouts["u_0"].abandoned
    assert (ledger.open, ledger.pending, ledger.violations) == ([], [], [])


def test_a_run_starts_nothing_on_a_claimed_database(config, tmp_path, queue_settings):
    settings = load(config, {"queue.redis_url": queue_settings.redis_url})
    Claim(settings.model_copy(update={"name": "other"})).acquire()
    run = tmp_path / "runs" / "run"
    run.mkdir(parents=True)
    said = []
    with pytest.raises(ConfigError, match="the run 'other'"):
        Services(settings, run, StopSignals(), said.append).__enter__()
    assert said == []
    assert "'other'" in claim.conflict(queue_settings)


def test_a_trainer_that_cannot_start_reports_why(tmp_path, monkeypatch):
    monkeypatch.setattr("coordinator.run.trainer.MODULE", "no_such_trainer")
    trainer = Trainer([], {}, tmp_path / "trainer.log", tmp_path / "work")
    trainer.start()
    wait_until(lambda: not trainer.running, START_S)
    with pytest.raises(TrainerDied, match="No module named no_such_trainer"):
        trainer.check()
