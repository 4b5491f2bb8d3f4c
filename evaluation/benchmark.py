"""A benchmark: its items, its images, and the interface of a benchmark format.

Invariants: a file that cannot be read is a `ConfigError` that names file, item and field, raised before
anything is posted; the order and number of items are the file's.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from policy.data.checked_images import CheckedImages, Progress
from policy.data.checked_images import check as check_images
from policy.data.input_images import InputImage
from policy.document import Task
from workers.errors import ConfigError
from workers.messages import Message, Text
from workers.storage.blobs import BlobStore

PROBLEMS = 20  # images that one message names
Kind = Literal["rubric", "reward"]


class Item(Message):
    """One item; its images are in the blob store. `criteria`: by name, in order; none for the reward."""

    item_id: str
    task: Task
    criteria: dict[str, Text]


@dataclass(frozen=True)
class Entry:
    """One item as read from its file. `where`: its place, for messages."""

    item_id: str
    task: Task
    criteria: Mapping[str, str]
    images: tuple[InputImage, ...]
    where: str


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as read from its file. `kind`: how its documents are judged."""

    name: str
    kind: Kind
    entries: tuple[Entry, ...]

    def check(self, progress: Progress | None = None) -> None:
        """Decode every image. Raises `ConfigError` with the problems, one a line."""
        problems = check_images([image for entry in self.entries for image in entry.images], progress)
        if len(problems) > PROBLEMS:
            problems[PROBLEMS:] = [f"{self.name}: {len(problems) - PROBLEMS} more images like these"]
        if problems:
            raise ConfigError("\n".join(problems))

    def store(self, blobs: BlobStore) -> tuple[Item, ...]:
        """The items, after storing their images. Storing again changes nothing."""
        checked = CheckedImages()
        return tuple(
            Item(
                item_id=entry.item_id,
                task=entry.task.model_copy(
                    update={"inputs": tuple(blobs.put(checked.get(image)) for image in entry.images)}
                ),
                criteria=dict(entry.criteria),
            )
            for entry in self.entries
        )


class Format(ABC):
    """One file format.

    `kind`: rubric, where each item has criteria; reward, where each document gets the training reward.
    `files`: the files that it reads, for messages.
    """

    kind: ClassVar[Kind]
    files: ClassVar[str]

    @abstractmethod
    def matches(self, path: Path, head: bytes) -> bool:
        """Whether the file is of this format, by its name or its first bytes (`head`)."""

    @abstractmethod
    def read(self, path: Path) -> list[Entry]:
        """Every item of the file. Decodes no image. Raises `ConfigError` that names file, item and field."""


def fingerprint(items: Sequence[Item]) -> str:
    """SHA-256 of the items; the file's name does not matter."""
    text = json.dumps([item.model_dump(mode="json") for item in items], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
