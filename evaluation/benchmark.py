"""Benchmarks from files: LLMI-Bench's format (JSON or JSON lines), or prompts in the LLM-I schema (parquet).

A JSON item is `{prompt, images?, r1, .., r10}`: `<image>` in the prompt marks where an image stands; images
are paths relative to the file, data URIs or plain base64; there is at least one criterion; other keys are
left alone. A parquet row has no criteria: its document gets the training reward.
Invariants: whatever cannot be read is a `ConfigError` that names file, item and field, raised before anything
is posted; the order and number of items are the file's.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from policy.dataset import load_rows
from policy.document import Task
from workers import images
from workers.blobs import BlobStore
from workers.errors import ConfigError, InfrastructureFault
from workers.messages import Message, Text

CRITERIA = tuple(f"r{number}" for number in range(1, 11))
Kind = Literal["rubric", "reward"]


class Item(Message):
    """One item, its images in the blob store. `criteria`: by name, in order; none for the reward."""

    item_id: str
    task: Task
    criteria: dict[str, Text]


class Readable(Protocol):
    """An input image still in its file. `read` raises `ConfigError`."""

    def read(self) -> bytes: ...


@dataclass(frozen=True)
class FileImage:
    path: Path
    where: str

    def read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{self.where}: cannot read {self.path}: {error.strerror}") from error


@dataclass(frozen=True)
class InlineImage:
    text: str
    where: str

    def read(self) -> bytes:
        try:
            return images.from_base64(self.text)
        except InfrastructureFault as error:
            raise ConfigError(
                f"{self.where}: neither an existing file nor base64; give a path relative to the benchmark, "
                "a data URI or base64"
            ) from error


@dataclass(frozen=True)
class Entry:
    """One item as read; `where` names it in messages."""

    item_id: str
    task: Task
    criteria: Mapping[str, str]
    images: tuple[Readable, ...]
    where: str

    def checked(self) -> list[bytes]:
        """The images, decoded and encoded anew. Raises `ConfigError`."""
        clean = []
        for number, image in enumerate(self.images):
            try:
                clean.append(images.checked(image.read()))
            except InfrastructureFault as error:
                raise ConfigError(f"{self.where}: images[{number}]: {error.detail}") from error
        return clean


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as read from its file; `kind` says how its documents are judged."""

    name: str
    kind: Kind
    entries: tuple[Entry, ...]

    def check(self) -> None:
        """Read every image once. Raises `ConfigError` with the first problem of each item, one a line."""
        problems = []
        for entry in self.entries:
            try:
                entry.checked()
            except ConfigError as error:
                problems.append(str(error))
        if problems:
            raise ConfigError("\n".join(problems))

    def store(self, blobs: BlobStore) -> tuple[Item, ...]:
        """The items, their images put into the blob store (again does no harm)."""
        return tuple(
            Item(
                item_id=entry.item_id,
                task=entry.task.model_copy(
                    update={"inputs": tuple(blobs.put(data) for data in entry.checked())}
                ),
                criteria=dict(entry.criteria),
            )
            for entry in self.entries
        )


def load(path: str | Path, limit: int | None = None) -> Benchmark:
    """The first `limit` items of a benchmark file, images not yet looked at. Raises `ConfigError`."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such benchmark; name a .json or .jsonl file in LLMI-Bench's format, or a .parquet "
            "file in the LLM-I schema"
        )
    entries = _rows(path) if path.suffix == ".parquet" else _rubric(path)
    kind: Kind = "reward" if path.suffix == ".parquet" else "rubric"
    return Benchmark(name=path.name, kind=kind, entries=tuple(entries[:limit]))


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
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    raw = _array(path, text) if text.lstrip().startswith("[") else _lines(path, text)
    if not raw:
        raise ConfigError(f"{path}: holds no item")
    return [_entry(path, where, number, item) for number, (where, item) in enumerate(raw, start=1)]


def _array(path: Path, text: str) -> list[tuple[str, object]]:
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not valid JSON: {error.msg}; mend this line") from error
    return [(f"{path}: item {number}", item) for number, item in enumerate(items, start=1)]


def _lines(path: Path, text: str) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append((f"{path}: line {number}", json.loads(line)))
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"{path}: line {number}: not valid JSON: {error.msg}; one item a line, or one array"
            ) from error
    return found


def _entry(path: Path, where: str, number: int, item: object) -> Entry:
    if not isinstance(item, dict):
        raise ConfigError(f"{where}: must be an object with prompt and criteria r1 to r10")
    prompt = item.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ConfigError(f"{where}: prompt: must be a text")
    given = item.get("images") or []
    if not isinstance(given, list) or not all(isinstance(one, str) and one for one in given):
        raise ConfigError(f"{where}: images: must be a list of paths, data URIs or base64 texts")
    source = "interleaved_mm" if given else "interleaved"
    return Entry(
        item_id=f"{number:04d}",
        task=Task(question=prompt.strip(), split="test", data_source=source),
        criteria=_criteria(where, item),
        images=tuple(
            _image(path.parent, one, f"{where}: images[{index}]") for index, one in enumerate(given)
        ),
        where=where,
    )


def _criteria(where: str, item: Mapping[str, object]) -> dict[str, str]:
    beyond = [name for name in item if re.fullmatch(r"r\d+", name) and name not in CRITERIA]
    if beyond:
        raise ConfigError(f"{where}: {beyond[0]}: criteria are named r1 to r10")
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


def _image(folder: Path, text: str, where: str) -> Readable:
    """A data URI; a file, if there is one of that name; else base64, if it can be that."""
    if text.startswith("data:"):
        return InlineImage(text, where)
    if len(text) < 1024:
        path = folder / text.removeprefix("file://")
        if path.is_file() or "." in text or re.fullmatch(r"[A-Za-z0-9+/=\s]+", text) is None:
            return FileImage(path, where)
    return InlineImage(text, where)
