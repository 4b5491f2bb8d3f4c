"""The state of a node on disk, its lock, and the GPUs of its workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.config.pools import PoolSettings
from coordinator.scale.nodes import supervisor
from coordinator.scale.nodes.plan import Plan, Planned
from coordinator.scale.nodes.state import NodeState, Record
from coordinator.scale.nodes.supervisor import Devices, NodeWorker, Supervisor
from workers.errors import ConfigError, InfrastructureFault
from workers.process.worker import WorkerProcess
from workers.redis_url import address

URL = "redis://127.0.0.1:6379/0"


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("redis://:secret@host:1/2", "redis://host:1/2"),
        ("rediss://user:secret@host", "rediss://host:6379/0"),
        ("redis://localhost", URL),
        ("redis://:secret@[::1]:6379", "redis://[::1]:6379/0"),
    ],
)
def test_the_address_without_its_password_has_one_spelling(url, plain):
    assert address(url) == plain
    assert address(plain) == plain


@given(st.text(alphabet="abcXYZ0189-_.~%", min_size=4).filter(lambda text: text not in "redis://host:6379/0"))
def test_no_password_survives(secret):
    assert secret not in address(f"redis://:{secret}@host:6379/0")


def test_state_is_apart_by_redis_and_by_node(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMI_STATE", str(tmp_path))
    folders = {NodeState.of(url, node).folder for url in (URL, URL[:-1] + "1") for node in ("a", "b")}
    assert len(folders) == 4
    assert all(folder.parent == tmp_path for folder in folders)
    assert NodeState.of("redis://:x@localhost:6379", "a").folder in folders


def test_the_default_state_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("LLMI_STATE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert NodeState.of(URL, "a").folder.parent == tmp_path / "llmi"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert NodeState.of(URL, "a").folder.parent == Path.home() / ".local" / "state" / "llmi"


def test_a_lock_lasts_until_the_last_child_of_its_holder_ends(tmp_path):
    state = NodeState(tmp_path / "node")
    lock = state.lock()
    assert lock is not None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    os.close(lock)
    assert state.running
    assert state.lock() is None
    child.communicate(b"\n")
    assert not state.running


def test_looking_whether_a_node_runs_makes_nothing(tmp_path):
    assert not NodeState(tmp_path / "node").running
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_variable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="LLMI_STATE"):
        NodeState(tmp_path / "file" / "node").lock()


def test_the_record_is_readable_by_its_owner_only_and_comes_back(tmp_path):
    plan = Plan(pools=(Planned(pool=PoolSettings(queues=("code",))),), left_out={"search": "no key"})
    record = Record(node="a", redis=URL, queues=(), role="all", plan=plan, ready_s=1.0, drain_s=1.0)
    state = NodeState(tmp_path)
    state.write(record)
    assert state.read() == record
    assert [file.stat().st_mode & 0o777 for file in tmp_path.iterdir()] == [0o600]
    (tmp_path / "node.json").write_text('{"of": "another version"}')
    assert state.read() is None


@pytest.fixture
def processes(monkeypatch) -> set[str]:
    """The names of workers that live, without processes."""
    living: set[str] = set()
    monkeypatch.setattr(WorkerProcess, "start", lambda self: living.add(self.name))
    monkeypatch.setattr(WorkerProcess, "alive", property(lambda self: self.name in living))
    return living


def hired(devices: Devices | None, name: str) -> NodeWorker:
    worker = NodeWorker(("diffusion",), Path("config.json"), 1, Path("log"), name)
    worker.devices = devices
    return worker


def seen(worker: NodeWorker) -> str:
    return worker._extra_env["CUDA_VISIBLE_DEVICES"]


def test_each_worker_has_a_gpu_of_its_own_and_leaves_it_to_its_successor(processes, monkeypatch):
    devices = Devices(("GPU-a", "GPU-b"))
    first, second, third = (hired(devices, name) for name in ("first", "second", "third"))
    first.start()
    second.start()
    assert {seen(first), seen(second)} == {"GPU-a", "GPU-b"}
    monkeypatch.setattr(supervisor, "FREE_S", 0.3)
    with pytest.raises(InfrastructureFault, match="no GPU is free for third"):
        third.start()
    processes.remove("first")
    monkeypatch.setattr(supervisor, "FREE_S", 60.0)
    third.start()
    assert seen(third) == seen(first)


def test_a_worker_that_was_given_no_gpu_sees_none(processes):
    worker = hired(None, "plain")
    worker.start()
    assert seen(worker) == ""


def test_a_record_that_a_full_disk_refused_is_written_again(tmp_path, monkeypatch):
    """Regression: it was tried once, and a caller that waited for "ready" never returned."""
    state = NodeState(tmp_path)
    empty = Record(
        node="n", redis=URL, queues=(), role="all", plan=Plan(pools=(), left_out={}), ready_s=1.0, drain_s=1.0
    )
    supervisor = Supervisor(state, empty)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        supervisor._update(phase="ready")
    assert supervisor._unwritten
    assert list(tmp_path.iterdir()) == [], "a part of it is left"
    supervisor._update()
    assert not supervisor._unwritten
    assert state.read().phase == "ready"


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")
