"""A folder in the cache that is built once.

Invariants: the folder appears whole or not at all; it is built again when its sources have changed; a folder
that was not built here is never touched; of two processes that need it at once, one builds it.
"""

from __future__ import annotations

import fcntl
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from workers.errors import ConfigError

MANIFEST = "manifest.json"


def cached_folder(folder: Path, made_from: Mapping[str, object], make: Callable[[Path], None]) -> Path:
    """Return `folder`; fill it with `make` first, unless its manifest equals `made_from`.

    `make` gets the path of a folder that does not exist yet. Raises `ConfigError` when `folder` holds
    something else.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        manifest = folder / MANIFEST
        if manifest.is_file() and json.loads(manifest.read_text(encoding="utf-8")) == made_from:
            return folder
        if folder.exists() and any(folder.iterdir()) and not manifest.is_file():
            raise ConfigError(f"{folder} holds files but no {MANIFEST}; name an empty or a new folder")
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as work:
            part = Path(work) / "new"
            make(part)
            (part / MANIFEST).write_text(json.dumps(made_from), encoding="utf-8")
            if folder.exists():
                folder.rename(Path(work) / "old")
            part.rename(folder)
    return folder
