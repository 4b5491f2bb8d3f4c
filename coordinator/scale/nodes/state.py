"""The state of a node on disk: its lock, its record, its configuration and its logs.

Invariants:
- Whether the node runs is known from the kernel, by the lock that its supervisor holds.
- The record is replaced as a whole, readable by its owner only, and holds no password.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from coordinator.config.settings import CONFIG_FILE, ServiceConfig
from coordinator.scale.nodes.plan import Plan, Role
from workers.errors import ConfigError
from workers.redis_url import address
from workers.settings import Settings
from workers.storage.atomic import save

STATE_ENV = "LLMI_STATE"
POLL_S = 0.02

Phase = Literal["starting", "ready", "draining", "stopped", "failed"]


class Record(Settings):
    """`pid`: of the supervisor (0 until it has started). `queues` and `role`: the options, `plan`: the
    resulting plan. `ready_s`: how long a worker may load, `drain_s`: how long it may finish what it runs.
    """

    node: str
    redis: str
    queues: tuple[str, ...]
    role: Role
    plan: Plan
    ready_s: float
    drain_s: float
    phase: Phase = "starting"
    pid: int = 0
    restarts: int = 0
    problem: str = ""
    since: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


class NodeState:
    """The folder of one node on one Redis database."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def of(cls, redis_url: str, node: str) -> NodeState:
        """Below LLMI_STATE, or XDG_STATE_HOME/llmi, or ~/.local/state/llmi."""
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        base = Path(os.path.expanduser(os.environ.get(STATE_ENV) or f"{state}/llmi"))
        digest = hashlib.sha256(address(redis_url).encode()).hexdigest()[:8]
        return cls(base.absolute() / f"{re.sub(r'[^A-Za-z0-9._-]', '_', node)}-{digest}")

    @property
    def config(self) -> Path:
        return self.folder / CONFIG_FILE

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def log(self) -> Path:
        """The log of the supervisor."""
        return self.logs / "supervisor.log"

    def lock(self, wait_s: float = 0.0) -> int | None:
        """Open a file that holds the lock until it, and every copy of it, is closed.

        Returns None when another process still holds the lock after `wait_s` seconds. Raises `ConfigError`
        when the folder cannot be made.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"{STATE_ENV}: {self.folder} cannot be made or written ({error.strerror}); name another "
                "folder"
            ) from error
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(file)
                    return None
                time.sleep(POLL_S)
            else:
                return file

    @property
    def running(self) -> bool:
        """Whether a supervisor holds the lock."""
        if not (self.folder / "lock").exists():
            return False
        file = self.lock()
        if file is None:
            return True
        os.close(file)
        return False

    def write(self, record: Record) -> None:
        self._replace("node.json", record.model_dump_json(indent=1))

    def read(self) -> Record | None:
        """The last record; None without one, and for one of another version."""
        try:
            return Record.model_validate_json((self.folder / "node.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValidationError):
            return None

    def write_config(self, config: ServiceConfig) -> None:
        self._replace(CONFIG_FILE, json.dumps(config.model_dump(mode="json"), indent=1))

    def read_config(self) -> ServiceConfig:
        return ServiceConfig.model_validate_json(self.config.read_text(encoding="utf-8"))

    def keep_logs(self) -> None:
        """Start an empty folder of logs; keep those of the last start in `logs-before`."""
        before = self.logs.with_name("logs-before")
        shutil.rmtree(before, ignore_errors=True)
        if self.logs.exists():
            self.logs.rename(before)
        self.logs.mkdir(mode=0o700)

    def _replace(self, name: str, text: str) -> None:
        save(self.folder / name, text + "\n", mode=0o600)
