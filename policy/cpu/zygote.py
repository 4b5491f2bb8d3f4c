"""The zygote: a process that has imported torch, verl and vLLM once, from which the Ray workers of a CPU run
are forked.

Such a run has some eight of them, and each would import the same for 15 s, one after the other: two minutes
before the first step, on a machine of two cores. Ray's runtime environment names what starts a worker
(`py_executable`); here that is `fork_client`, which asks this process for a fork that runs Ray's own worker
program with the client's arguments, environment and descriptors. Invariants: it forks before it has a thread
of its own; a worker is what it would be without (where no zygote answers, or a worker of another job asks,
the client starts Python); the zygote dies with the process that made it, its forks with their raylet, as
ever.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import secrets
import shlex
import signal
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from policy.cpu import fork_client
from policy.cpu.fork_client import LENGTH, TAKEN
from policy.settings import RAY_WORKER_ENV
from workers.process.interpreter import PYTHON

MODULES = (
    "verl.trainer.ppo.v1",
    "verl.workers.rollout.vllm_rollout.vllm_async_server",
    "policy.rollout.agent_loop",
    "policy.train.trainer",
)
ASKED_S = 5.0  # for a whole request, once a client is there
_PEER = struct.Struct("3i")  # pid, uid, gid
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Order:
    """A worker to be: Ray's script with its arguments, and what it is to find."""

    argv: list[str]
    cwd: str
    env: dict[str, str]
    descriptors: list[int]


def begin() -> str:
    """Import everything, fork the zygote, and return the command for Ray's `py_executable`. To be called
    while this process has only one thread.
    """
    for module in MODULES:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # the collector of a fork does not copy these pages by looking at them
    name = f"llmi-{os.getpid()}-{secrets.token_hex(8)}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind("\0" + name)
    listener.listen(64)
    parent = os.getpid()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        serve(listener)
    listener.close()
    return shlex.join([*PYTHON, "-S", "-E", str(Path(fork_client.__file__)), name])


def serve(listener: socket.socket) -> NoReturn:
    """Fork a worker for each client, for ever; in a worker, this ends as Ray's program ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(ASKED_S)
            order = receive(connection)
            if order is None:
                continue  # it starts Python by itself
            if os.fork() == 0:
                listener.close()
                become(order, connection)
            for descriptor in order.descriptors:
                os.close(descriptor)


def receive(connection: socket.socket) -> Order | None:
    """The client's order, its descriptors open; None, and none of them open, for one that cannot be read, of
    another user, or of another raylet or job than ours, which Ray's core read when it was imported.
    """
    descriptors: list[int] = []
    try:
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        head, descriptors, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
        if _PEER.unpack(peer)[1] != os.getuid() or len(descriptors) != 3:
            raise ValueError("not our client")
        asked = json.loads(_body(connection, head))
        if any(asked["env"].get(name) != os.environ.get(name) for name in RAY_WORKER_ENV):
            raise ValueError("a worker of another raylet or job")
        return Order(asked["argv"], asked["cwd"], asked["env"], descriptors)
    except Exception:  # noqa: BLE001 - gone, slow, or as above: whatever a client sends, the zygote goes on
        for descriptor in descriptors:
            os.close(descriptor)
        return None


def _body(connection: socket.socket, head: bytes) -> bytes:
    (length,) = LENGTH.unpack(head)
    body = b""
    while len(body) < length and (part := connection.recv(length - len(body))):
        body += part
    if len(body) != length:
        raise ValueError("cut short")
    return body


def become(order: Order, connection: socket.socket) -> NoReturn:
    """Run the script as a Python of its own would. The connection stays open until this process ends."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor, taken in enumerate(order.descriptors):
        os.dup2(taken, descriptor)
        os.close(taken)
    os.chdir(order.cwd)
    os.environ.clear()
    os.environ.update(order.env)
    sys.argv = order.argv
    sys.path[0] = str(Path(order.argv[0]).parent)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # else all forks would draw the same; Python's own generator does this by itself
    connection.settimeout(None)
    connection.sendall(TAKEN)
    runpy.run_path(order.argv[0], run_name="__main__")
    sys.exit(0)
