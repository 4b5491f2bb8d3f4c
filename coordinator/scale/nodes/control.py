"""A node's supervisor seen from outside: started in the background, watched until it is ready, stopped.

Invariants: a node that runs already is left as it is; `start` returns when every worker consumes, and leaves
nothing behind when it fails.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

import redis

from coordinator.console.terminal import Notify
from coordinator.host.signals import StopSignals
from coordinator.scale.nodes.joining import Joining, alike
from coordinator.scale.nodes.state import NodeState, Record
from coordinator.state import claim
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.process.interpreter import PYTHON, child_environment
from workers.redis_client import connect_redis

POLL_S = 0.1
BEGIN_S = 60.0  # for the supervisor to say that it is there
GIVE_UP_S = 30.0
LOOK_S = 1.0  # others who only look whether a node runs hold the lock for a moment


def state_of(record: Record) -> NodeState:
    return NodeState.of(record.redis, record.node)


def running(joining: Joining, config_given: bool) -> Record | None:
    """The record of a node that runs already. Raises `ConfigError` when it was started for something else."""
    wanted = joining.record
    state = state_of(wanted)
    if not state.running:
        return None
    record = state.read()
    if record is None:
        raise ConfigError(
            f"{state.folder}: a node runs whose record cannot be read; end the process that has the file "
            "lock there open"
        )
    if record.phase == "draining":
        raise ConfigError(
            f"{wanted.node} is just draining; start it again when that has ended, or end it at once with "
            "`llmi workers stop --now`"
        )
    other = [
        f"{name} {' '.join(old) or 'all'}, not {' '.join(new) or 'all'}"
        for name, old, new in (
            ("--queues", record.queues, wanted.queues),
            ("--role", (record.role,), (wanted.role,)),
        )
        if old != new
    ]
    if config_given and not alike(state.read_config(), joining.config):
        other.append("another --config")
    if other:
        raise ConfigError(
            f"{wanted.node} runs already, with {'; '.join(other)}. Stop it first with `llmi workers stop` "
            "(the same --redis and --node), or join under another --node"
        )
    return record


def start(joining: Joining, say: Notify) -> tuple[Record, bool]:
    """Start the supervisor and wait until all its workers are ready. Returns its record, and whether it is
    this call's: another may be quicker. Raises `InfrastructureFault` after the log's end was told, `Stopped`
    by a signal meanwhile; both leave nothing behind.
    """
    record = joining.record
    state = state_of(record)
    lock = state.lock(wait_s=LOOK_S)
    if lock is None:
        return wait_ready(state, say, anew=False), False
    try:
        _write(state, joining)
        command = [*PYTHON, "-m", "coordinator.scale.nodes.supervisor", str(state.folder), str(lock)]
        with state.log.open("wb") as log, open(os.devnull, "rb") as nothing:
            process = subprocess.Popen(
                command,
                stdin=nothing,
                stdout=log,
                stderr=log,
                env=child_environment(os.environ),
                start_new_session=True,
                pass_fds=(lock,),
            )
    finally:
        os.close(lock)  # the supervisor has its own copy
    try:
        return wait_ready(state, say), True
    except BaseException:  # Ctrl-C too: what was begun here must not go on unseen
        _end(process)
        raise


def foreground(joining: Joining, signals: StopSignals) -> None:
    """Be the supervisor until told to stop. Raises `ConfigError` when the node runs already."""
    from coordinator.scale.nodes.supervisor import Supervisor

    record = joining.record
    state = state_of(record)
    lock = state.lock(wait_s=LOOK_S)
    if lock is None:
        raise ConfigError(f"{record.node} runs already; stop it first with `llmi workers stop`")
    try:
        _write(state, joining)
        Supervisor(state, record).run(signals)
    finally:
        os.close(lock)


def wait_ready(state: NodeState, say: Notify, anew: bool = True) -> Record:
    """Returns the record of a node that is ready. Raises `InfrastructureFault` when it failed or ended.

    How long the workers may take is the supervisor's to know. `anew`: tell what the log holds already.
    """
    told = 0 if anew else _told(state)
    deadline = time.monotonic() + BEGIN_S
    while True:
        alive = state.running  # asked before the record is read: the last word is written before the end
        record = state.read()
        told = _follow(state, told, say)
        if alive and record is not None and record.phase == "ready":
            return record
        begun = record is not None and record.pid
        if not alive or (not begun and time.monotonic() > deadline):
            why = "the supervisor does not begin" if alive else "the workers did not all come up"
            raise InfrastructureFault(
                Cause.WORKER_LOST, f"{why}, and none is left; {state.log} ends as above"
            )
        time.sleep(POLL_S)


def stop(state: NodeState, now: bool, say: Notify) -> bool:
    """Drain the node, or with `now` end it at once. Returns whether one was running. Interrupted, it drains
    on.
    """
    if not state.running:
        return False
    record = _begun(state)
    told = _told(state)
    signals = 0
    while state.running:
        draining = (state.read() or record).phase == "draining"
        if signals == 0 or (now and signals == 1 and draining):
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, signal.SIGTERM)
            signals += 1
        told = _follow(state, told, say)
        time.sleep(POLL_S)
    _follow(state, told, say)
    return True


def _begun(state: NodeState) -> Record:
    """The record once the supervisor has put its process id there."""
    deadline = time.monotonic() + BEGIN_S
    while time.monotonic() < deadline:
        record = state.read()
        if record is not None and record.pid:
            return record
        time.sleep(POLL_S)
    raise InfrastructureFault(Cause.INTERNAL, f"{state.folder}: the supervisor does not say who it is")


def _write(state: NodeState, joining: Joining) -> None:
    """Record and configuration; the latter published for nodes that join later."""
    state.keep_logs()
    state.write_config(joining.config)
    state.write(joining.record)
    if not joining.publish:
        return
    try:
        with connect_redis(joining.config.queue.url) as client:
            client.set(claim.CONFIG_KEY, joining.config.model_dump_json())
    except redis.RedisError as error:
        raise InfrastructureFault(
            Cause.PROVIDER_DOWN, f"{joining.record.redis} ceased to answer ({type(error).__name__})"
        ) from error


def _told(state: NodeState) -> int:
    return state.log.stat().st_size if state.log.exists() else 0


def _follow(state: NodeState, told: int, say: Notify) -> int:
    """Pass on what the supervisor's log has gained beyond `told` bytes; returns how many those are then."""
    try:
        with state.log.open("rb") as log:
            log.seek(told)
            text = log.read()
    except FileNotFoundError:
        return told
    whole = text.rpartition(b"\n")[0]
    for line in whole.decode(errors="replace").splitlines():
        say(line)
    return told + len(whole) + (1 if whole else 0)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have the supervisor give up: its workers have hardly begun, so draining is short."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(GIVE_UP_S)
    except subprocess.TimeoutExpired:
        process.kill()  # its workers die with it
        process.wait()
