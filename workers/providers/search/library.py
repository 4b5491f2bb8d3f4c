"""Search in a local folder of captioned images, with a full-text index (SQLite FTS5, bm25).

A library is a folder with `captions.jsonl`, one `{"file": ..., "caption": ...}` per line (optional: `origin`,
shown to readers), and the files it names.

Invariants:
- The index is a file beside the captions, named by their hash and renamed into place when complete, so it is
  never stale or partial.
- A match shares a content word with the query (`full_text`). Without a match the search is
  `ModelFault(NO_HIT)`.
"""

from __future__ import annotations

import hashlib
import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from workers import images
from workers.errors import Cause, ConfigError, InfrastructureFault, ModelFault
from workers.providers.provider import Provider, ProviderImage, ProviderRequest
from workers.settings import SearchSettings
from workers.text import full_text

NAME = "library"
CAPTIONS = "captions.jsonl"


class Entry(BaseModel):
    """One line of `captions.jsonl`; `file` is relative to the folder."""

    file: str
    caption: str
    origin: str = ""


class Library(Provider[SearchSettings]):
    """The library at `tools.search.library`. The same query always gives the same image."""

    @classmethod
    def defaults(cls, tool: str) -> Mapping[str, Any]:
        return {"library": ".cache/library"}

    def check(self) -> list[str]:
        captions = Path(self.settings.library) / CAPTIONS
        if captions.is_file():
            return []
        return [
            f"{self.field}.library: {captions} is missing; name a folder of images with that file in it, "
            'one JSON object per line: {"file": ..., "caption": ...}'
        ]

    def warm(self) -> None:
        ensure_index(Path(self.settings.library))

    def call(self, request: ProviderRequest) -> ProviderImage:
        """The best match. Raises `ModelFault(NO_HIT)` when no caption shares a word with the query."""
        folder = Path(self.settings.library)
        found = best_match(folder, request.text)
        if found is None:
            raise ModelFault(Cause.NO_HIT, "no caption of the library matches", provider=NAME)
        path = _inside(folder, found.file)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InfrastructureFault(
                Cause.BAD_ANSWER, f"{found.file} cannot be read", provider=NAME
            ) from error
        return ProviderImage(
            images.checked(data, provider=NAME),
            {
                "provider": NAME,
                "caption": found.caption,
                "title": found.caption,
                "origin": found.origin or "local image library",
                "file": found.file,
            },
        )


PROVIDER = Library


def best_match(folder: Path, query: str) -> Entry | None:
    """The entry that bm25 ranks first, or None without a hit. Raises `ConfigError` when there is no
    library.
    """
    match = full_text.match_expression(query)
    if not match:
        return None
    index = ensure_index(folder)
    with closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True)) as database:
        row = database.execute(
            "SELECT file, caption, origin FROM captions WHERE captions MATCH ? "
            "ORDER BY bm25(captions), rowid LIMIT 1",
            (match,),
        ).fetchone()
    return Entry(file=row[0], caption=row[1], origin=row[2]) if row else None


def ensure_index(folder: Path) -> Path:
    """The index of `folder`, built if it is not there. Raises `ConfigError` naming the file that is missing
    or wrong.
    """
    captions = folder / CAPTIONS
    try:
        data = captions.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"tools.search.library: {captions} cannot be read; name a folder that holds it"
        ) from error
    index = folder / f"index-{hashlib.sha256(data).hexdigest()[:16]}.sqlite"
    if not index.exists():
        _build_index(index, _entries(str(captions), data))
    return index


@lru_cache(maxsize=4)
def _entries(name: str, data: bytes) -> tuple[Entry, ...]:
    entries = []
    # At line feeds only: a caption may hold other separators of lines, such as U+2028.
    for number, line in enumerate(data.decode("utf-8-sig", errors="replace").split("\n"), start=1):
        if line.strip():
            try:
                entries.append(Entry.model_validate_json(line))
            except ValidationError as error:
                raise ConfigError(f"{name}, line {number}: {error.errors()[0]['msg']}") from error
    if not entries:
        raise ConfigError(f"{name} names no image")
    return tuple(entries)


def _build_index(index: Path, entries: tuple[Entry, ...]) -> None:
    part = index.with_suffix(f".{uuid.uuid4().hex}.part")
    with closing(sqlite3.connect(part)) as database, database:
        database.execute(
            "CREATE VIRTUAL TABLE captions USING fts5"
            f"(caption, file UNINDEXED, origin UNINDEXED, tokenize = '{full_text.TOKENIZER}')"
        )
        database.executemany(
            "INSERT INTO captions (caption, file, origin) VALUES (:caption, :file, :origin)",
            [entry.model_dump() for entry in entries],
        )
    part.replace(index)


def _inside(folder: Path, file: str) -> Path:
    path = None if "\0" in file else (folder / file).resolve()
    if path is None or not path.is_relative_to(folder.resolve()):
        raise InfrastructureFault(Cause.BAD_ANSWER, f"{file} is outside the library", provider=NAME)
    return path
