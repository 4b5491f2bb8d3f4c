"""Read the items of a JSON file: one array, or JSON lines.

Invariants: lines end at line feeds only, since strings may contain the other separators (U+2028, U+0085); a
file that cannot be read is a short `ConfigError` that names file, line and what to do.
"""

from __future__ import annotations

import json
from pathlib import Path

from policy.data.files import shown
from workers.errors import ConfigError

HINT = "write one item a line, or one array of items"


class _DuplicateKey(ValueError):
    """A key that an object has twice; `json` would use the last."""


def read(path: Path) -> list[tuple[str, object]]:
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
