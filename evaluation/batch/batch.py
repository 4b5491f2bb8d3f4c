"""A batch: one benchmark given to one author, as a folder or any fsspec URL.

`batch.json` says what is evaluated with what settings, `documents/<item>.json` what was written,
`results/<item>.json` what became of it.
Invariants: every file appears whole or not at all; a document is written once; a result is replaced only by
one of the same or a later round; nothing here depends on Redis, which only knows what is under way.
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
    """What is evaluated, and how. `sha256`: of the items; `batch_id` is part of every request's id."""

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
        """How many verdicts there can be: all criteria of all items, or one reward per item."""
        return sum(len(item.criteria) or 1 for item in self.items)

    def item(self, item_id: str) -> Item:
        """Raises `KeyError`."""
        for item in self.items:
            if item.item_id == item_id:
                return item
        raise KeyError(item_id)

    def request_id(self, item_id: str, round_: int) -> str:
        """The id under which this item is posted in this round."""
        return f"{self.batch_id}-{item_id}-{round_}"


class Batch:
    """Blocking; call it from commands and threads, or through `asyncio.to_thread`."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self._fs, root = fsspec.core.url_to_fs(self.url)
        self._root = root.rstrip("/")

    def path(self, name: str) -> str:
        """Where a file of the batch lies in its file system."""
        return f"{self._root}/{name}"

    def exists(self) -> bool:
        return bool(self._fs.exists(self.path("batch.json")))

    def manifest(self) -> Manifest:
        """Raises `ConfigError` when there is no such batch, or it cannot be read."""
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
        """Store it, unless there is one; returns the one that is there now."""
        there = self.document(item_id)
        if there is not None:
            return there
        self.write(f"documents/{item_id}.json", document.model_dump_json().encode())
        return document

    def result(self, item_id: str) -> ItemResult | None:
        return self._read(f"results/{item_id}.json", ItemResult)

    def save_result(self, result: ItemResult) -> None:
        """Store it, unless that of a later round is there."""
        there = self.result(result.item_id)
        if there is None or there.round <= result.round:
            self.write(f"results/{result.item_id}.json", result.model_dump_json().encode())

    def results(self, known: Mapping[str, ItemResult] | None = None) -> dict[str, ItemResult]:
        """Every result there is. `known`: from an earlier call; what was complete then is not read again."""
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
        """Put a file into the batch, atomically; returns where it lies."""
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
