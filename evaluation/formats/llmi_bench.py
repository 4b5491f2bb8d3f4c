"""LLMI-Bench's format: a JSON array, or JSON lines.

An item is `{prompt, images?, r1, .., r10}`. `<image>` in the prompt marks the place of an image. Images are
paths relative to the file, data URIs or base64. An item has at least one criterion. Other keys are logged and
ignored.

Invariants: lines end at line feeds only, since strings may contain the other separators (U+2028, U+0085); a
file that cannot be read is a short `ConfigError` that names file, line and what to do.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path

from evaluation.benchmark import Entry, Format
from policy.data.dataset import PLACEHOLDER, match_placeholders
from policy.data.files import IMAGES, misnamed, shown, some
from policy.data.input_images import InputImage
from policy.document import Task
from workers.errors import ConfigError

logger = logging.getLogger(__name__)
CRITERIA = tuple(f"r{number}" for number in range(1, 11))
KEYS = ("prompt", "images", *CRITERIA)
HINT = "write one item a line, or one array of items"


class FORMAT(Format):
    """See the module."""

    kind = "rubric"
    files = "a .json or .jsonl file in LLMI-Bench's format"

    def matches(self, path: Path, head: bytes) -> bool:
        return path.suffix in (".json", ".jsonl")

    def read(self, path: Path) -> list[Entry]:
        found = _items(path)
        names = dict.fromkeys(name for _, item in found if isinstance(item, dict) for name in item)
        entries = [_entry(path, where, number, item) for number, (where, item) in enumerate(found, start=1)]
        if ignored := [name for name in names if name not in KEYS]:
            logger.warning("%s: ignored keys: %s", path, some(ignored))
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


class _DuplicateKey(ValueError):
    """A key that an object has twice; `json` would use the last."""


def _items(path: Path) -> list[tuple[str, object]]:
    """Every item with its place, for messages. Raises `ConfigError`."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name another file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start:,} is not UTF-8; save the file as UTF-8") from error
    found = _array(path, text) if text.lstrip().startswith("[") else _lines(path, text)
    if not found:
        raise ConfigError(f"{path}: has no item; {HINT}")
    return found


def _array(path: Path, text: str) -> list[tuple[str, object]]:
    try:
        items = _parsed(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not valid JSON: {error.msg}; correct this line") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {_why(error)}") from error
    assert isinstance(items, list)
    return [(f"{path}: item {number}", item) for number, item in enumerate(items, start=1)]


def _lines(path: Path, text: str) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            found.append((where, _parsed(line)))
        except json.JSONDecodeError as error:
            raise ConfigError(f"{where}: not valid JSON: {error.msg}; {HINT}") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{where}: {_why(error)}") from error
    return found


def _parsed(text: str) -> object:
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _DuplicateKey(f"key {shown(twice)} is there twice; remove one")
    return found


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"is nested too deeply to be items; {HINT}"
    return str(error) if isinstance(error, _DuplicateKey) else f"not valid JSON: {shown(str(error))}; {HINT}"
