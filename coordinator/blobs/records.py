"""References to blobs in the records of a run or an evaluation, and in its Redis.

A run has `config.json` and a ledger, an evaluation has `batch.json`; a folder may hold both.

Invariants: every SHA-256 in a text counts as a reference, so that none is missed; a wrong one only keeps a
blob. A record that cannot be read completely is a `ConfigError`, since each missed reference is a lost
image.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import redis

from coordinator.config.settings import CONFIG_FILE
from coordinator.watch.status import ENDPOINTS, redis_url
from coordinator.watch.summary import SUMMARY
from evaluation.batch.batch import Batch
from policy.ledger.entries import LEDGER
from workers.broker.keys import outcome_key, record_key
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.redis_client import SCAN_TIMEOUT_S, connect_redis
from workers.settings import BlobSettings, QueueSettings

AT_ONCE = 500
_NAME = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def references_in(text: bytes) -> set[str]:
    """The references in `text`."""
    return {name.decode() for name in _NAME.findall(text)}


def references_in_redis(url: str) -> set[str]:
    """The references in every request that is queued or held by a worker, and in every stored outcome.

    Requests are read before outcomes, so that one that ends meanwhile is not missed. Raises
    `redis.RedisError`.
    """
    found: set[str] = set()
    with connect_redis(url, SCAN_TIMEOUT_S) as client:
        for text in _texts(client):
            found |= references_in(text)
    return found


def _texts(client: Any) -> Iterator[bytes]:
    for keys in _batches(client.scan_iter(f"{record_key('')}*", count=1000)):
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.hget(key, "message")
        yield from filter(None, pipeline.execute())
    for keys in _batches(client.scan_iter(f"{outcome_key('')}*", count=1000)):
        yield from filter(None, client.mget(keys))


def _batches(keys: Iterator[bytes]) -> Iterator[list[bytes]]:
    while batch := list(itertools.islice(keys, AT_ONCE)):
        yield batch


class Records:
    """The records of the run or the evaluation at `place`, a folder or a URL. Blocking.

    Raises `ConfigError` when `place` is neither.
    """

    def __init__(self, place: str):
        self._place = place
        self._batch = Batch(place)
        self._run = None if "://" in place else Path(place)
        try:
            self._is_evaluation = self._batch.exists()
            self._is_run = self._run is not None and any((self._run / LEDGER).glob("*"))
        except OSError as error:
            raise ConfigError(f"{place}: cannot be read: {error.strerror or error}") from error
        if self._is_evaluation or self._is_run:
            return
        if self._run is not None and (self._run / CONFIG_FILE).is_file():
            raise ConfigError(
                f"{place} has a {CONFIG_FILE}, and neither the ledger of a run nor the batch.json of an "
                "evaluation: it has only just started, or these were removed"
            )
        raise ConfigError(f"{place}: neither a run nor an evaluation; name the folder of one")

    @property
    def store(self) -> str:
        """The URL of its blob store. Raises `ConfigError`."""
        found = set()
        if self._is_evaluation:
            found.add(self._batch.manifest().blobs.url)
        if self._is_run:
            found.add(self._settings("blobs", BlobSettings).url)
        if len({_location(url) for url in found}) != 1:
            raise ConfigError(f"{self._place} has more than one image store: {', '.join(sorted(found))}")
        url = found.pop()
        if "://" not in url and not Path(url).is_absolute():
            raise ConfigError(f"{self._place}: blobs.url is {url}; write an absolute path")
        return url

    def references(self, store: str) -> set[str]:
        """Every blob that it references.

        Raises `ConfigError` when a record is missing or damaged, or when its store is not `store`;
        `InfrastructureFault` when a run has not ended and its Redis does not answer.
        """
        own = self.store
        if _location(own) != _location(store):
            raise ConfigError(f"its image store is {own}")
        names: set[str] = set()
        if self._is_evaluation:
            names |= _named(self._lines_of_batch())
        if self._is_run:
            assert self._run is not None
            names |= _named(_lines_of_ledger(self._run)) | self._in_redis(self._run)
        return names

    def _settings(self, name: str, model: Any) -> Any:
        """A section of the run's configuration."""
        assert self._run is not None
        file = self._run / CONFIG_FILE
        try:
            return model.model_validate(json.loads(file.read_text(encoding="utf-8")).get(name, {}))
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"{file}: missing, damaged or of another version ({str(error)[:200]})"
            ) from error

    def _lines_of_batch(self) -> Iterator[bytes]:
        """The text of each JSON file. Raises `ConfigError` for a result without its document, which
        references the images.
        """
        for result in self._batch.results().values():
            if result.document_id and self._batch.document(result.item_id) is None:
                raise ConfigError(f"{self._place}/documents/{result.item_id}.json is missing")
        fs, root = fsspec.core.url_to_fs(self._place)
        fs.invalidate_cache()
        for path in fs.find(root):
            if not path.endswith(".json"):
                continue
            text = fs.cat_file(path)
            try:
                json.loads(text)
            except ValueError as error:
                raise ConfigError(f"{path}: damaged ({str(error)[:200]})") from error
            yield text

    def _in_redis(self, run: Path) -> set[str]:
        url = redis_url(run, self._settings("queue", QueueSettings))
        ended = (run / SUMMARY).exists()
        if not url:
            if ended or not any(_lines_of_ledger(run)):
                return set()  # no request is left
            raise ConfigError(f"{run / ENDPOINTS} is missing, and the run has not ended")
        try:
            return references_in_redis(url)
        except redis.RedisError as error:
            if ended:
                return set()
            detail = f"{run.name} has not ended, and its Redis does not answer ({type(error).__name__})"
            raise InfrastructureFault(Cause.PROVIDER_DOWN, f"{detail}; nothing is removed") from error


def _location(url: str) -> tuple[str, str]:
    """One value for all spellings of a place."""
    fs, root = fsspec.core.url_to_fs(url)
    return str(fs.protocol), str(root).rstrip("/")


def _named(lines: Iterable[bytes]) -> set[str]:
    names: set[str] = set()
    for line in lines:
        names |= references_in(line)
    return names


def _lines_of_ledger(run: Path) -> Iterator[bytes]:
    """Every line. The last line of a file may be cut off, when its writer was killed."""
    for path in sorted((run / LEDGER).glob("*")):
        if path.suffix != ".jsonl":
            raise ConfigError(f"{path} is not part of a ledger of this version")
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n") and not (line.startswith(b"{") and line.endswith(b"}\n")):
                    raise ConfigError(f"{path}: line {number} is damaged")
                yield line
