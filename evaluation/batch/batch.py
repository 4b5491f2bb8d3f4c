"""A batch: the evaluation of one author on one benchmark, as a folder or any fsspec URL.

`batch.json` has the items and settings, `documents/<item>.json` the documents, `results/<item>.json` the
results.

Invariants:
- Files are written atomically.
- A document is written once. A result is replaced only by one of the same or a later round.
- Nothing here depends on Redis, which only knows what is queued or running.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import fsspec
from pydantic import BaseModel, Field, ValidationError

from evaluation.batch.results import ItemResult
from evaluation.benchmark import Item, Kind
from evaluation.settings import AuthorSettings, RubricSettings
from policy.document import Document
from rewards.settings import JudgeSettings, RewardSettings
from workers.errors import ConfigError
from workers.messages import Message
from workers.settings import BlobSettings, QueueSettings
from workers.storage.atomic import write

M = TypeVar("M", bound=BaseModel)


class Manifest(Message):
    """The items and settings. `sha256`: of the items; `batch_id`: part of every request's id."""

    version: Literal[1] = 1
    batch_id: str = Field(default_factory=lambda: uuid.uuid4().hex[:12])
    name: str
    created: float
    kind: Kind
    benchmark: str
    sha256: str
    items: tuple[Item, ...]
    author: AuthorSettings
    rubric: RubricSettings
    reward: RewardSettings
    judges: JudgeSettings
    blobs: BlobSettings
    queue: QueueSettings

    @property
    def criteria(self) -> int:
        """The number of possible verdicts: all criteria of all items, or one reward per item."""
        return sum(len(item.criteria) or 1 for item in self.items)

    def item(self, item_id: str) -> Item:
        """Raises `KeyError`."""
        for item in self.items:
            if item.item_id == item_id:
                return item
        raise KeyError(item_id)

    def request_id(self, item_id: str, round_: int) -> str:
        """The id of this item's request in this round."""
        return f"{self.batch_id}-{item_id}-{round_}"


class Batch:
    """Access to the files of a batch. Blocking: call it from commands and threads."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self._fs, root = fsspec.core.url_to_fs(self.url)
        self._root = root.rstrip("/")

    def path(self, name: str) -> str:
        """The path of a file of the batch in its file system."""
        return f"{self._root}/{name}"

    def exists(self) -> bool:
        return bool(self._fs.exists(self.path("batch.json")))

    def manifest(self) -> Manifest:
        """The manifest. Raises `ConfigError` when the batch does not exist or cannot be read."""
        manifest = self._read("batch.json", Manifest)
        if manifest is None:
            raise ConfigError(
                f"{self.url}: no such evaluation; `llmi evaluate submit` makes one (--name, --dir)"
            )
        return manifest

    def create(self, manifest: Manifest) -> None:
        self.write("batch.json", manifest.model_dump_json(indent=1).encode())

    def document(self, item_id: str) -> Document | None:
        return self._read(f"documents/{item_id}.json", Document)

    def save_document(self, item_id: str, document: Document) -> Document:
        """Store the document unless there is one. Returns the stored one."""
        stored = self.document(item_id)
        if stored is not None:
            return stored
        self.write(f"documents/{item_id}.json", document.model_dump_json().encode())
        return document

    def result(self, item_id: str) -> ItemResult | None:
        return self._read(f"results/{item_id}.json", ItemResult)

    def save_result(self, result: ItemResult) -> None:
        """Store the result unless there is one of a later round."""
        stored = self.result(result.item_id)
        if stored is None or stored.round <= result.round:
            self.write(f"results/{result.item_id}.json", result.model_dump_json().encode())

    def results(self, known: Mapping[str, ItemResult] | None = None) -> dict[str, ItemResult]:
        """Every result. `known`: of an earlier call; results complete then are not read again."""
        found = {item_id: result for item_id, result in (known or {}).items() if result.complete}
        folder = self.path("results")
        self._fs.invalidate_cache()
        names = self._fs.ls(folder, detail=False) if self._fs.exists(folder) else []
        for name in sorted(names):
            item_id = name.rpartition("/")[2].removesuffix(".json")
            if name.endswith(".json") and item_id not in found:
                result = self.result(item_id)
                if result is not None:
                    found[item_id] = result
        return found

    def write(self, name: str, data: bytes) -> str:
        """Write a file of the batch atomically; returns its path."""
        target = self.path(name)
        write(self._fs, target, data)
        return target

    def _read(self, name: str, model: type[M]) -> M | None:
        try:
            raw: Any = json.loads(self._fs.cat_file(self.path(name)))
            return model.model_validate(raw)
        except FileNotFoundError:
            return None
        except (ValueError, ValidationError) as error:
            raise ConfigError(f"{self.url}/{name}: not written by llmi ({str(error)[:200]})") from error
