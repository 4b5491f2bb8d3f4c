"""Benchmarks from files: LLMI-Bench's format (JSON or JSON lines), or prompts in the LLM-I schema (parquet).

A JSON item is `{prompt, images?, r1, .., r10}`: `<image>` in the prompt marks where an image stands; images
are paths relative to the file, data URIs or plain base64; there is at least one criterion; other keys are
named in the log and not read. A parquet row has no criteria: its document gets the training reward.
Invariants: whatever cannot be read is a `ConfigError` that names file, item and field, raised before anything
is posted; the order and number of items are the file's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evaluation.formats import json_items
from policy.data import table as table_of
from policy.data.checked_images import CheckedImages, Progress
from policy.data.checked_images import check as check_images
from policy.data.dataset import PLACEHOLDER, load_rows, match_placeholders
from policy.data.files import IMAGES, head, misnamed, shown, some
from policy.data.input_images import InputImage
from policy.document import Task
from workers.errors import ConfigError
from workers.messages import Message, Text
from workers.storage.blobs import BlobStore

logger = logging.getLogger(__name__)
CRITERIA = tuple(f"r{number}" for number in range(1, 11))
KEYS = ("prompt", "images", *CRITERIA)
WHAT = "a .json or .jsonl file in LLMI-Bench's format, or a .parquet file in the LLM-I schema"
PROBLEMS = 20  # images that are named in one message
Kind = Literal["rubric", "reward"]


class Item(Message):
    """One item, its images in the blob store. `criteria`: by name, in order; none for the reward."""

    item_id: str
    task: Task
    criteria: dict[str, Text]


@dataclass(frozen=True)
class Entry:
    """One item as read; `where` names it in messages."""

    item_id: str
    task: Task
    criteria: Mapping[str, str]
    images: tuple[InputImage, ...]
    where: str


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as read from its file; `kind` says how its documents are judged."""

    name: str
    kind: Kind
    entries: tuple[Entry, ...]

    def check(self, progress: Progress | None = None) -> None:
        """Put every image through the image gate. Raises `ConfigError` with the problems, one a line."""
        problems = check_images([image for entry in self.entries for image in entry.images], progress)
        if len(problems) > PROBLEMS:
            problems[PROBLEMS:] = [f"{self.name}: {len(problems) - PROBLEMS} more images like these"]
        if problems:
            raise ConfigError("\n".join(problems))

    def store(self, blobs: BlobStore) -> tuple[Item, ...]:
        """The items, their images put into the blob store (again does no harm)."""
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


def load(path: str | Path, limit: int | None = None) -> Benchmark:
    """The first `limit` items of a benchmark file, images not yet looked at. Raises `ConfigError`."""
    path = Path(path)
    table = head(path, WHAT).startswith(table_of.MAGIC) or path.suffix == ".parquet"
    entries = _rows(path) if table else _rubric(path)
    return Benchmark(name=path.name, kind="reward" if table else "rubric", entries=tuple(entries[:limit]))


def fingerprint(items: Sequence[Item]) -> str:
    """SHA-256 of what is asked and judged: equal for equal items, whatever the file is called."""
    text = json.dumps([item.model_dump(mode="json") for item in items], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _rows(path: Path) -> list[Entry]:
    return [
        Entry(
            item_id=f"{row.index + 1:04d}",
            task=row.task(),
            criteria={},
            images=row.images,
            where=f"{path}: row {row.index}",
        )
        for row in load_rows(path)
    ]


def _rubric(path: Path) -> list[Entry]:
    found = json_items.read(path)
    unknown = dict.fromkeys(name for _, item in found if isinstance(item, dict) for name in item)
    entries = [_entry(path, where, number, item) for number, (where, item) in enumerate(found, start=1)]
    if ignored := [name for name in unknown if name not in KEYS]:
        logger.warning("%s: keys that are not read: %s", path, some(ignored))
    return entries


def _entry(path: Path, where: str, number: int, item: object) -> Entry:
    if not isinstance(item, dict):
        raise ConfigError(f"{where}: must be an object with prompt and criteria r1 to r10")
    filled = [name for name in item if item[name] or name != "images"]
    for name, meant in misnamed(filled, KEYS[:2], {**IMAGES, "question": "prompt"}).items():
        raise ConfigError(f"{where}: {shown(name)}: did you mean {meant}? Rename the key, or leave it out")
    prompt = item.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ConfigError(f"{where}: prompt: must be a text")
    given = [] if item.get("images") is None else item["images"]
    if not isinstance(given, list) or not all(isinstance(one, str) and one for one in given):
        raise ConfigError(f"{where}: images: must be a list of paths, data URIs or base64 texts")
    match_placeholders(where, prompt.count(PLACEHOLDER), len(given))
    source = "interleaved_mm" if given else "interleaved"
    return Entry(
        item_id=f"{number:04d}",
        task=Task(question=prompt.strip(), split="test", data_source=source),
        criteria=_criteria(where, item),
        images=tuple(
            InputImage(one, path.parent, f"{where}: images[{index}]") for index, one in enumerate(given)
        ),
        where=where,
    )


def _criteria(where: str, item: Mapping[str, object]) -> dict[str, str]:
    for name in item:
        if name not in CRITERIA and re.fullmatch(r"\s*r[\s_-]?\d{1,9}\s*", name, re.IGNORECASE):
            raise ConfigError(f"{where}: {shown(name)}: criteria are named r1 to r10; rename it")
    found: dict[str, str] = {}
    for name in CRITERIA:
        text = item.get(name)
        if text is None:
            continue
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{where}: {name}: must be a text")
        found[name] = text.strip()
    if not found:
        raise ConfigError(f"{where}: r1: missing; an item needs at least one criterion, r1 to r10")
    return found
