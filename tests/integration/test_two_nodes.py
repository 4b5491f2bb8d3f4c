"""Two nodes and a Redis between them, each a network namespace with a host name and an address of its own.

The namespaces are unnamed and belong to a user namespace, so no root is needed and they end with the
processes that hold them. The image store is a folder that both see, as nodes of a cluster would.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import yaml
from places import REPOSITORY
from waiting import wait_until

pytestmark = pytest.mark.long

LLMI = Path(sys.executable).with_name("llmi")
REDIS = "10.77.0.1"
ADDRESSES = {"alpha": "10.77.0.2", "beta": "10.77.0.3"}
PASSWORD = "only-for-this-test"
URL = f"redis://:{PASSWORD}@{REDIS}:6379/0"
CALL_S = 90.0

# Posts charts from the Redis' namespace and prints which worker drew each: `host:process`.
POST = """
import asyncio, json, os, sys
from workers.client.client import QueueClient
from workers.messages import CodePayload, Request
from workers.settings import QueueSettings

async def main():
    async with asyncio.timeout(80), QueueClient(QueueSettings()) as client:
        chart = CodePayload(code="import time; time.sleep(0.5); plt.plot([1, 2])")
        posted = [await client.post(Request.make("code", chart, timeout_s=60)) for _ in range(8)]
        outcomes = [await each.outcome() for each in posted]
    print(json.dumps([[each.result.status, each.worker] for each in outcomes]))

asyncio.run(main())
"""


# What the kernel answers where namespaces or their devices are forbidden, missing or used up.
FORBIDDEN = ("not permitted", "Permission denied", "not supported", "Unknown device type", "No space left")


class NotAllowed(Exception):
    """Why this machine does not allow such namespaces."""


def refused(what: str, output: str) -> Exception:
    """`NotAllowed` for what a machine may forbid; any other failure is the test's own."""
    message = f"{what}: {output.strip() or 'no output'}"
    return NotAllowed(message) if any(word in output for word in FORBIDDEN) else AssertionError(message)


class Namespace:
    """A process that holds a network and a host name; `inside` puts a command there. Raises `NotAllowed`."""

    def __init__(self, name: str, inside: Sequence[str] = (), user: bool = False):
        flags = ["--net", "--uts", *(["--user", "--map-root-user"] if user else [])]
        hold = f"hostname {name} && ip link set lo up && echo up && exec sleep infinity"
        self._holder = subprocess.Popen(
            [*inside, "unshare", *flags, "sh", "-c", hold],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        self.pid = self._holder.pid
        if (said := self._holder.stdout.readline()) != "up\n":
            self.end()
            raise refused(f"namespace {name}", said)

    @property
    def inside(self) -> list[str]:
        return ["nsenter", "--target", str(self.pid), "--user", "--net", "--uts", "--preserve-credentials"]

    def ip(self, *arguments: str) -> None:
        command = [*self.inside, "ip", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=CALL_S)
        if done.returncode:
            raise refused(f"ip {' '.join(arguments)}", done.stdout + done.stderr)

    def end(self) -> None:
        self._holder.kill()
        self._holder.communicate()


@contextlib.contextmanager
def laid() -> Iterator[dict[str, Namespace]]:
    """`hub` with the Redis' address, `alpha` and `beta` with theirs, joined by a bridge in `hub`. Raises
    `NotAllowed`.
    """
    missing = [tool for tool in ("ip", "unshare", "nsenter", "hostname") if shutil.which(tool) is None]
    if missing:
        raise NotAllowed(f"{', '.join(missing)} not installed (iproute2, util-linux, hostname)")
    spaces: dict[str, Namespace] = {}
    try:
        hub = spaces["hub"] = Namespace("hub", user=True)
        hub.ip("link", "add", "bridge", "type", "bridge")
        hub.ip("address", "add", f"{REDIS}/24", "dev", "bridge")
        hub.ip("link", "set", "bridge", "up")
        for name, address in ADDRESSES.items():
            node = spaces[name] = Namespace(name, inside=hub.inside)
            hub.ip("link", "add", f"to-{name}", "type", "veth", "peer", "eth0", "netns", str(node.pid))
            hub.ip("link", "set", f"to-{name}", "master", "bridge", "up")
            node.ip("address", "add", f"{address}/24", "dev", "eth0")
            node.ip("link", "set", "eth0", "up")
        yield spaces
    finally:
        for space in reversed(spaces.values()):
            space.end()


@pytest.fixture
def network() -> Iterator[dict[str, Namespace]]:
    with contextlib.ExitStack() as stack:
        try:
            spaces = stack.enter_context(laid())
        except NotAllowed as error:
            pytest.skip(f"two nodes cannot be simulated here: {error}")
        yield spaces


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of every command; supervisors that a failed test leaves are killed, and their workers with them."""
    unset = ("LLMI_REDIS_URL", "LLMI_CONFIG", "CUDA_VISIBLE_DEVICES")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    state = tmp_path / "state"
    yield env | {"LLMI_STATE": str(state), "LLMI_REDIS_PASSWORD": PASSWORD}
    for file in state.glob("*/node.json"):
        with contextlib.suppress(psutil.NoSuchProcess):
            left = psutil.Process(json.loads(file.read_text())["pid"])
            if left.environ().get("LLMI_STATE") == str(state):
                left.kill()


def answer(node: Namespace, env: dict[str, str], *command: str) -> dict:
    done = subprocess.run([*node.inside, *command], env=env, capture_output=True, text=True, timeout=CALL_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(300)  # seven starts of commands and workers, maybe on a busy machine
def test_jobs_are_done_on_both_nodes_and_both_leave_clean(network, environment, tmp_path):
    hub = network["hub"]
    log = tmp_path / "redis.out"
    with log.open("w") as out:
        server = subprocess.Popen(
            [*hub.inside, str(LLMI), "redis", "--dir", str(tmp_path / "redis"), "--host", REDIS],
            env=environment, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        wait_until(lambda: "ready" in log.read_text() or server.poll() is not None)
        config = tmp_path / "node.yaml"
        # These nodes are user namespaces; root cannot switch to another user there.
        code = {"require": ["landlock", "seccomp", "netns", "private_root", "processes"]}
        settings = {"blobs": {"url": str(tmp_path / "blobs")}, "tools": {"code": code}}
        config.write_text(yaml.safe_dump(settings))
        env = environment | {"LLMI_REDIS_URL": URL}
        start = [str(REPOSITORY / "ops" / "start_workers.sh"), "--queues", "code", "--json"]
        first = answer(network["alpha"], env, *start, "--config", str(config))
        second = answer(network["beta"], env, *start)  # its configuration is the one that alpha published
        assert [first["node"], second["node"]] == ["alpha", "beta"]
        families = [psutil.Process(one["pid"]) for one in (first, second)]
        families += [child for one in families for child in one.children(recursive=True)]
        outcomes = json.loads(
            subprocess.run(
                [*hub.inside, sys.executable, "-c", POST],
                env=env, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=CALL_S,
            ).stdout
        )  # fmt: skip
        assert [status for status, _ in outcomes] == ["success"] * 8
        assert {worker.partition(":")[0] for _, worker in outcomes} == {"alpha", "beta"}
        workers = answer(hub, env, str(LLMI), "workers", "status", "--json")["workers"]
        assert [(one["node"], one["ready"]) for one in workers] == [("alpha", True), ("beta", True)]
        for name in ADDRESSES:
            stopped = answer(network[name], env, str(REPOSITORY / "ops" / "stop_workers.sh"), "--json")
            assert stopped == {"node": name, "was_running": True}
        _, alive = psutil.wait_procs(families, timeout=10)
        assert alive == []
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.parametrize(
    ("output", "kind"), [("Operation not permitted", NotAllowed), ("no such option", AssertionError)]
)
@pytest.mark.parametrize(("tool", "word"), [("ip", "bridge"), ("ip", "veth"), ("unshare", "alpha")])
def test_only_what_a_machine_forbids_skips(tmp_path, monkeypatch, tool, word, output, kind):
    """As on machines whose kernel has no veth, or whose containers may not nest namespaces."""
    real = shutil.which(tool)
    if real is None:
        pytest.skip(f"{tool} is not installed")
    simulated = tmp_path / tool
    simulated.write_text(
        f'#!/bin/sh\ncase "$*" in *{word}*) echo "{word}: {output}"; exit 2;; esac\nexec {real} "$@"\n'
    )
    simulated.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises((NotAllowed, AssertionError)) as caught, laid():
        pass
    if f"{word}: {output}" not in str(caught.value):
        pytest.skip(f"a step before it is not allowed here: {caught.value}")
    assert caught.type is kind
