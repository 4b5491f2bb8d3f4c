"""Start, watch and stop a node's supervisor from outside.

Invariants: a node that is running is left as it is; `start` returns when every worker consumes, and leaves
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
from coordinator.scale.nodes.joining import JoinPlan, same_settings
from coordinator.scale.nodes.state import NodeState, Record
from coordinator.state import claim
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.process.interpreter import PYTHON, child_environment
from workers.redis_client import connect_redis

POLL_S = 0.1
BEGIN_S = 60.0  # until the supervisor has written its process id
GIVE_UP_S = 30.0
LOCK_S = 1.0  # a check whether the node runs holds the lock for a moment


def state_of(record: Record) -> NodeState:
    return NodeState.of(record.redis, record.node)


def running(joining: JoinPlan, config_given: bool) -> Record | None:
    """The record of a node that is running; None when it is not. Raises `ConfigError` when it runs with other
    options."""
    wanted = joining.record
    state = state_of(wanted)
    if not state.running:
        return None
    record = state.read()
    if record is None:
        raise ConfigError(
            f"{state.folder}: a node is running, and its record cannot be read; end the process that holds "
            "the lock there"
        )
    if record.phase == "draining":
        raise ConfigError(
            f"{wanted.node} is draining; start it again after that, or end it at once with "
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
    if config_given and not same_settings(state.read_config(), joining.config):
        other.append("another --config")
    if other:
        raise ConfigError(
            f"{wanted.node} is running already, with {'; '.join(other)}. stop it first with `llmi workers "
            "stop` (the same --redis and --node), or join under another --node"
        )
    return record


def start(joining: JoinPlan, notify: Notify) -> tuple[Record, bool]:
    """Start the supervisor and wait until all its workers are ready.

    `notify`: gets each line of its log. Returns its record, and False when another call started it first.
    Raises `InfrastructureFault`, or `Stopped` by a signal; both leave nothing behind.
    """
    record = joining.record
    state = state_of(record)
    lock = state.lock(wait_s=LOCK_S)
    if lock is None:
        return wait_ready(state, notify, from_start=False), False
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
        return wait_ready(state, notify), True
    except BaseException:  # Ctrl-C too: nothing may go on unseen
        _end(process)
        raise


def foreground(joining: JoinPlan, signals: StopSignals) -> None:
    """Run the supervisor in this process until a signal. Raises `ConfigError` when the node is running."""
    from coordinator.scale.nodes.supervisor import Supervisor

    record = joining.record
    state = state_of(record)
    lock = state.lock(wait_s=LOCK_S)
    if lock is None:
        raise ConfigError(f"{record.node} is running already; stop it first with `llmi workers stop`")
    try:
        _write(state, joining)
        Supervisor(state, record).run(signals)
    finally:
        os.close(lock)


def wait_ready(state: NodeState, notify: Notify, from_start: bool = True) -> Record:
    """Wait for a ready node and return its record. Raises `InfrastructureFault` when it failed or ended.

    The supervisor limits the time of its workers. `from_start`: also pass on what the log holds already.
    """
    shown = 0 if from_start else _log_size(state)
    deadline = time.monotonic() + BEGIN_S
    while True:
        alive = state.running  # read before the record, which is written before the end
        record = state.read()
        shown = _follow(state, shown, notify)
        if alive and record is not None and record.phase == "ready":
            return record
        started = record is not None and record.pid
        if not alive or (not started and time.monotonic() > deadline):
            why = "the supervisor does not start" if alive else "not all workers became ready"
            raise InfrastructureFault(
                Cause.WORKER_LOST, f"{why}, and none is left; see the end of {state.log} above"
            )
        time.sleep(POLL_S)


def stop(state: NodeState, now: bool, notify: Notify) -> bool:
    """Drain the node, or with `now` end it at once. Returns whether it was running. Draining goes on when
    this call is interrupted.
    """
    if not state.running:
        return False
    record = _started(state)
    shown = _log_size(state)
    signals = 0
    while state.running:
        draining = (state.read() or record).phase == "draining"
        if signals == 0 or (now and signals == 1 and draining):
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, signal.SIGTERM)
            signals += 1
        shown = _follow(state, shown, notify)
        time.sleep(POLL_S)
    _follow(state, shown, notify)
    return True


def _started(state: NodeState) -> Record:
    """The record, once the supervisor has written its process id."""
    deadline = time.monotonic() + BEGIN_S
    while time.monotonic() < deadline:
        record = state.read()
        if record is not None and record.pid:
            return record
        time.sleep(POLL_S)
    raise InfrastructureFault(Cause.INTERNAL, f"{state.folder}: the supervisor has written no process id")


def _write(state: NodeState, joining: JoinPlan) -> None:
    """Write record and configuration, and publish the configuration for nodes that join later."""
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
            Cause.PROVIDER_DOWN, f"{joining.record.redis} stopped answering ({type(error).__name__})"
        ) from error


def _log_size(state: NodeState) -> int:
    return state.log.stat().st_size if state.log.exists() else 0


def _follow(state: NodeState, shown: int, notify: Notify) -> int:
    """Pass on the supervisor's log beyond `shown` bytes; returns the number of bytes passed on so far."""
    try:
        with state.log.open("rb") as log:
            log.seek(shown)
            text = log.read()
    except FileNotFoundError:
        return shown
    whole = text.rpartition(b"\n")[0]
    for line in whole.decode(errors="replace").splitlines():
        notify(line)
    return shown + len(whole) + (1 if whole else 0)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the supervisor. Its workers have hardly started, so draining is short."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(GIVE_UP_S)
    except subprocess.TimeoutExpired:
        process.kill()  # its workers die with it
        process.wait()
