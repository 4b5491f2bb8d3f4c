"""The scaler of a run: polls queues and providers, and resizes the fleet by `coordinator.scale.scaling`.

Invariants: it runs in its own thread, so a slow Redis delays nothing else; while Redis does not answer the
pools keep their sizes; each change of a size is a line of `scaling.jsonl` with its reason.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import redis

from coordinator.config.pools import PoolSettings, ScalerSettings
from coordinator.scale.fleet import Fleet
from coordinator.scale.scaling import Decision, Sizer
from workers.broker.depths import QueueDepth, read_depths
from workers.broker.outages import RecentOutages
from workers.redis_client import COMMAND_TIMEOUT_S

logger = logging.getLogger(__name__)
RECORD = "scaling.jsonl"


class Scaler:
    """Call `stop` before the fleet is stopped. `depths`: from the last poll, empty while Redis does not
    answer."""

    def __init__(
        self, url: str, pools: Sequence[PoolSettings], settings: ScalerSettings, fleet: Fleet, run: Path
    ):
        self._url = url
        self._outages = RecentOutages(url)
        self._sizers = {pool.name: Sizer(pool, settings) for pool in pools}
        self._every_s = settings.every_s
        self._fleet = fleet
        self._record = run / RECORD
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scaler", daemon=True)
        self.depths: Mapping[str, QueueDepth] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop; no size changes after this."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(COMMAND_TIMEOUT_S + self._every_s)

    def poll(self, now: float) -> None:
        """Poll once, at `now` (monotonic seconds). Raises `redis.RedisError` when Redis does not answer."""
        self.depths = read_depths(self._url)
        down = {provider.kind for provider in self._outages.read()}
        states = self._fleet.states()
        for pool, sizer in self._sizers.items():
            current = states[pool].wanted
            decision = sizer.decide(now, self.depths, current, down)
            if decision.wanted != current:
                self._fleet.resize(pool, decision.wanted)
                self._write(pool, current, decision)

    def _write(self, pool: str, was: int, decision: Decision) -> None:
        why = {
            "backlog": decision.backlog,
            "running": decision.running,
            "rate": round(decision.rate, 3),
            "service_s": None if decision.service_s is None else round(decision.service_s, 3),
            "down": decision.down,
        }
        line = {"time": time.time(), "pool": pool, "was": was, "wanted": decision.wanted, "why": why}
        with self._record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _run(self) -> None:
        away = False
        while not self._stop.wait(self._every_s):
            try:
                self.poll(time.monotonic())
                away = False
            except redis.RedisError as error:
                self.depths = {}
                if not away:
                    logger.warning("Redis does not answer (%s); the pools keep their sizes", error)
                away = True
            except Exception:  # the run goes on without scaling; the next poll tries again
                logger.exception("the scaler failed")
