"""Workers forked from one process that has imported everything are what a new interpreter would be."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from policy.settings import RAY_WORKER_ENV

pytestmark = pytest.mark.long

WAIT_S = 60.0
LENGTH = struct.Struct("!Q")
OURS = dict.fromkeys(RAY_WORKER_ENV, "4711")
MAKER = """
import sys
from policy.cpu import zygote
zygote.MODULES = ("numpy",)
print(zygote.start(), flush=True)
sys.stdin.read()
"""
SCRIPT = """
import json, os, pathlib, sys
import here_beside_it
drawn = sys.modules["numpy"].random.random() if "numpy" in sys.modules else 0
print(json.dumps({
    "name": __name__, "argv": sys.argv, "cwd": os.getcwd(), "told": os.environ.get("TOLD"),
    "env": sorted(os.environ), "parent": os.getppid(), "session": os.getsid(0), "asked": sys.stdin.read(),
    "forked": "policy.cpu.zygote" in sys.modules, "pid": os.getpid(), "drawn": drawn,
}))
print("to the other", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def maker() -> Iterator[tuple[subprocess.Popen, list[str]]]:
    """A process with a zygote, and the command that starts a worker."""
    env = {**os.environ, **OURS, "VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "policy.cpu"}
    with subprocess.Popen(
        [sys.executable, "-c", MAKER], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        command: list[str] = []
        while not command:  # libraries may speak first
            line = process.stdout.readline()
            assert line, "it ended"
            command = shlex.split(line) if "fork_client" in line else []
        yield process, command
        process.kill()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "here_beside_it.py").write_text("")
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def run(command: list[str], script: Path, **env: str) -> tuple[dict, str]:
    """The result of the script, and its standard error."""
    ended = subprocess.run(
        [*command, str(script), "--one", "two words"],
        input="a question",
        env={"PATH": os.environ["PATH"], **env},
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
    )
    return json.loads(ended.stdout), ended.stderr


def test_a_fork_has_the_environment_of_a_new_python(maker: tuple, script: Path) -> None:
    process, command = maker
    found, complaint = run(command, script, **OURS, TOLD="this")
    alone, _ = run([sys.executable], script, **OURS, TOLD="this")
    assert (found.pop("forked"), alone.pop("forked")) == (True, False)
    assert found["session"] == found.pop("pid")
    assert found.pop("parent") in [child.pid for child in psutil.Process(process.pid).children()]
    for name in ("session", "drawn"):
        found.pop(name), alone.pop(name)
    del alone["pid"], alone["parent"]
    assert found == alone
    assert "to the other\n" in complaint


def test_forks_do_not_draw_the_same_numbers(maker: tuple, script: Path) -> None:
    _, command = maker
    assert len({run(command, script, **OURS)[0]["drawn"] for _ in range(3)}) == 3


@pytest.mark.parametrize("name", RAY_WORKER_ENV)
def test_a_worker_of_another_raylet_or_job_gets_a_new_python(maker: tuple, script: Path, name: str) -> None:
    _, command = maker
    found, _ = run(command, script, **{**OURS, name: "4712"})
    assert not found["forked"]
    assert found["asked"] == "a question"


def test_without_a_zygote_a_new_python_starts(maker: tuple, script: Path) -> None:
    _, command = maker
    found, _ = run([*command[:-1], "nobody-listens-here"], script, **OURS)
    assert not found["forked"]


def test_the_client_waits_for_its_fork(maker: tuple, tmp_path: Path) -> None:
    _, command = maker
    script = tmp_path / "waits.py"
    script.write_text("import os, sys\nprint(os.getpid(), flush=True)\nsys.stdin.read()\n")
    with subprocess.Popen(
        [*command, str(script)], env=OURS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        fork = psutil.Process(int(client.stdout.readline()))
        assert client.poll() is None
        fork.kill()
        client.wait(WAIT_S)


ORDER = {"argv": ["s"], "cwd": "/", "env": OURS}


@pytest.mark.parametrize(
    ("sent", "length"),
    [
        (None, 0),
        (b"", 0),
        (b"no JSON", 7),
        (b"\xff", 1),
        (b"[" * 50_000, 50_000),
        (b"[]", 2),
        (b'{"env": []}', 11),
        (json.dumps({"env": OURS}).encode(), len(json.dumps({"env": OURS}))),
        (json.dumps(ORDER | {"env": {}}).encode(), len(json.dumps(ORDER | {"env": {}}))),
        (json.dumps(ORDER).encode(), 100_000),
    ],
    ids=["nothing", "empty", "no JSON", "no text", "deep", "a list", "no environment", "no script",
         "another raylet", "cut short"],
)  # fmt: skip
def test_an_unreadable_request_leaks_no_descriptor(
    maker: tuple, script: Path, sent: bytes | None, length: int
) -> None:
    """Regression: its descriptors stayed open in the zygote, and one without a length ended it."""
    process, command = maker
    [forker] = psutil.Process(process.pid).children()
    before = forker.num_fds()
    with socket.socket(socket.AF_UNIX) as client, open(os.devnull) as lent:
        client.settimeout(WAIT_S)
        client.connect("\0" + command[-1])
        if sent is not None:
            socket.send_fds(client, [LENGTH.pack(length)], [lent.fileno()] * 3)
            client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert forker.num_fds() == before
    assert run(command, script, **OURS)[0]["forked"]


def test_the_zygote_ends_with_its_parent(maker: tuple) -> None:
    """Must be the last test of the module, since it ends what the others use."""
    process, _ = maker
    [zygote] = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs([zygote], timeout=WAIT_S)
    assert not zygote.is_running() or zygote.status() == psutil.STATUS_ZOMBIE
