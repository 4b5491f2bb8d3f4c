"""The zygote: a process that has imported torch, verl and vLLM, from which the Ray workers of a CPU run are
forked.

Such a run has about eight workers, and each would spend 15 s on the same imports: two minutes before the
first step on a machine of two cores. Ray's runtime environment names the command that starts a worker
(`py_executable`). Here that is `fork_client`, which requests a fork of this process; the fork runs Ray's own
worker program with the client's arguments, environment and descriptors.

Invariants:
- it forks only while it has one thread;
- a worker behaves as without it: if no zygote answers, or the worker belongs to another job, the client
  starts Python;
- it dies with the process that started it; its forks die with their raylet, as usual.
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
from policy.cpu.fork_client import ACCEPTED, LENGTH
from policy.settings import RAY_WORKER_ENV
from workers.process.interpreter import PYTHON

MODULES = (
    "verl.trainer.ppo.v1",
    "verl.workers.rollout.vllm_rollout.vllm_async_server",
    "policy.rollout.agent_loop",
    "policy.train.trainer",
)
REQUEST_S = 5.0  # to receive a request, once a client has connected
_PEER = struct.Struct("3i")  # pid, uid, gid
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class WorkerRequest:
    """A worker to start: Ray's script with its arguments, working folder, environment and descriptors."""

    argv: list[str]
    cwd: str
    env: dict[str, str]
    descriptors: list[int]


def start() -> str:
    """Import everything, fork the zygote, and return the command for Ray's `py_executable`.

    Call it while this process has only one thread.
    """
    for module in MODULES:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # the garbage collector of a fork then does not touch, and so copy, these pages
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
    """Fork a worker for each client, without end. In a worker, exits when Ray's program ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # reaps the workers
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(REQUEST_S)
            request = receive(connection)
            if request is None:
                continue  # the client starts Python
            if os.fork() == 0:
                listener.close()
                run_worker(request, connection)
            for descriptor in request.descriptors:
                os.close(descriptor)


def receive(connection: socket.socket) -> WorkerRequest | None:
    """Receive a request, with its descriptors open.

    Returns None, with no descriptor open, for a request that cannot be read or comes from another user,
    raylet or job. (Ray's core read its raylet and job when it was imported.)
    """
    descriptors: list[int] = []
    try:
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        head, descriptors, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
        if _PEER.unpack(peer)[1] != os.getuid() or len(descriptors) != 3:
            raise ValueError("not a client of this user")
        fields = json.loads(_body(connection, head))
        if any(fields["env"].get(name) != os.environ.get(name) for name in RAY_WORKER_ENV):
            raise ValueError("a worker of another raylet or job")
        return WorkerRequest(fields["argv"], fields["cwd"], fields["env"], descriptors)
    except Exception:  # noqa: BLE001 - no client may end the zygote
        for descriptor in descriptors:
            os.close(descriptor)
        return None


def _body(connection: socket.socket, head: bytes) -> bytes:
    (length,) = LENGTH.unpack(head)
    body = b""
    while len(body) < length and (part := connection.recv(length - len(body))):
        body += part
    if len(body) != length:
        raise ValueError("incomplete request")
    return body


def run_worker(request: WorkerRequest, connection: socket.socket) -> NoReturn:
    """Run the script as a new Python would. The connection stays open until this process ends."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor, received in enumerate(request.descriptors):
        os.dup2(received, descriptor)
        os.close(received)
    os.chdir(request.cwd)
    os.environ.clear()
    os.environ.update(request.env)
    sys.argv = request.argv
    sys.path[0] = str(Path(request.argv[0]).parent)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # else all forks draw the same numbers; Python's own generator reseeds itself
    connection.settimeout(None)
    connection.sendall(ACCEPTED)
    runpy.run_path(request.argv[0], run_name="__main__")
    sys.exit(0)
