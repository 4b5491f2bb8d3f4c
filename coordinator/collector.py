"""Clears up a blob store: removes what no run and no evaluation names, and what is old enough.

References come from the ledgers of runs, the files of evaluations, and the requests and outcomes in the runs'
Redis. Invariants: nothing is removed unless the references of everyone who uses the store were read; the
store is listed before they are, so that whatever comes into it meanwhile is not on the list.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import redis

from coordinator.config import CONFIG_FILE
from coordinator.garbage import sort
from coordinator.status import SUMMARY, redis_url
from evaluation.batch import Batch
from policy.ledger_writer import LEDGER
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.inventory import Inventory
from workers.named import named_in, named_in_redis
from workers.settings import BlobSettings, QueueSettings


@dataclass(frozen=True)
class Collected:
    """Counts of files, and the bytes of the garbage. `users`: whose references were read; `removed` is 0 when
    nothing was to be removed, and smaller than `garbage` when some was put again meanwhile.
    """

    url: str
    users: tuple[str, ...]
    named: int
    young: int
    garbage: int
    garbage_bytes: int
    removed: int


def collect(
    places: Sequence[str], *, keep_s: float, forget: Sequence[str] = (), dry_run: bool = False
) -> Collected:
    """Clear up the one store that `places` (folders of runs, folders or URLs of evaluations) use.

    `forget`: users that are gone for good. Raises `ConfigError` for a place that is neither, for places with
    different stores, and when somebody who uses the store cannot be read; `InfrastructureFault` when a run
    has not ended and its Redis does not answer: then nothing was removed; and when the store fails, whenever.
    """
    stores = {store_of(place) for place in places}
    if len(stores) != 1:
        raise ConfigError(f"these keep their images in different places: {', '.join(sorted(stores))}")
    inventory = Inventory(stores.pop())
    listed = {user.place: user.host for user in inventory.users()}
    if unknown := set(forget) - set(listed):
        raise ConfigError(f"--forget: {unknown.pop()} is not on the list of {inventory.url}")
    users = sorted({*places, *listed} - set(forget))
    stored = inventory.stored()
    names: set[str] = set()
    for user in users:
        try:
            names |= references(user)
        except (ConfigError, OSError) as error:
            raise ConfigError(
                f"{user} (of {listed.get(user, 'this machine')}) keeps images in {inventory.url}, and cannot "
                f"be read here: {error}; nothing is removed. If it is gone for good, add --forget {user}"
            ) from error
    found = sort(stored, names, now=time.time(), keep_s=keep_s)
    removed = 0
    if not dry_run:
        for place in forget:
            inventory.forget(place)
        removed = sum(inventory.remove(one) for one in found.garbage)
    return Collected(
        url=inventory.url,
        users=tuple(users),
        named=len(found.named),
        young=len(found.young),
        garbage=len(found.garbage),
        garbage_bytes=sum(one.size for one in found.garbage),
        removed=removed,
    )


def store_of(place: str) -> str:
    """Where a run or an evaluation keeps its images. Raises `ConfigError`."""
    if (config := _run(place)) is not None:
        return BlobSettings.model_validate(config.get("blobs", {})).url
    batch = Batch(place)
    if not batch.exists():
        raise ConfigError(f"{place}: neither a run nor an evaluation lies there")
    return batch.manifest().blobs.url


def references(place: str) -> set[str]:
    """Every blob that a run or an evaluation names. Raises as `collect`."""
    config = _run(place)
    if config is None:
        store_of(place)
        return _in(_lines_of_batch(place))
    return _in(_lines_of_ledger(Path(place))) | _in_redis(Path(place), config)


def _run(place: str) -> dict[str, Any] | None:
    """The configuration of the run in `place`; None when none lies there."""
    path = Path(place) / CONFIG_FILE
    if "://" in place or not path.is_file():
        return None
    return json.loads(path.read_text())


def _in(lines: Iterator[bytes]) -> set[str]:
    names: set[str] = set()
    for line in lines:
        names |= named_in(line)
    return names


def _lines_of_ledger(run: Path) -> Iterator[bytes]:
    for path in sorted((run / LEDGER).glob("*")):
        if path.suffix != ".jsonl":
            raise ConfigError(f"{path} is no part of a ledger that this version reads")
        with path.open("rb") as file:
            yield from file


def _lines_of_batch(place: str) -> Iterator[bytes]:
    fs, root = fsspec.core.url_to_fs(place)
    fs.invalidate_cache()
    for path in fs.find(root):
        if path.endswith(".json"):
            yield fs.cat_file(path)


def _in_redis(run: Path, config: dict[str, Any]) -> set[str]:
    url = redis_url(run, QueueSettings.model_validate(config.get("queue", {})))
    if not url:
        return set()  # it has not come to the point of posting anything
    try:
        return named_in_redis(url)
    except redis.RedisError as error:
        if (run / SUMMARY).exists():
            return set()
        detail = f"{run.name} has not ended, and its Redis does not answer ({type(error).__name__})"
        raise InfrastructureFault(Cause.PROVIDER_DOWN, f"{detail}; nothing is removed") from error
