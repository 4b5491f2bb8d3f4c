"""What lies in a blob store, how old it is, and who keeps references to it: for those that clear it up.

Runs and evaluations whose store lies outside of their own folder stand on a list in it, `<url>/users/`.
Invariants: listing changes nothing; only blobs and half-written ones are listed, whatever else lies there is
left alone; what was put again since it was listed is not removed.
"""

from __future__ import annotations

import hashlib
import re
import socket
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec

from workers.errors import ConfigError
from workers.messages import Message
from workers.storage.atomic import PART, write
from workers.storage.timeouts import store_errors

_BLOB = re.compile(
    rf"(?P<shelf>[0-9a-f]{{2}})/(?P<name>(?P=shelf)[0-9a-f]{{62}})(?P<part>\.[0-9a-f]+\{PART})?"
)


@dataclass(frozen=True)
class ListedBlob:
    """`path` in the store's file system; `sha256`: its name; `size` in bytes; `modified`: Unix seconds by the
    store's clock; `part`: a writer has not ended, or was killed.
    """

    path: str
    sha256: str
    size: int
    modified: float
    part: bool = False


class User(Message):
    """A run or an evaluation that keeps references. `place`: its folder or URL, as seen from `host`."""

    place: str
    host: str


class BlobListing:
    """Of the store at `url`. Blocking. Every call raises `InfrastructureFault(PROVIDER_DOWN)` when the store
    does not do what it is asked.
    """

    def __init__(self, url: str):
        self.url = url
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")

    def blobs(self) -> list[ListedBlob]:
        """Every blob and half-written blob, from one listing."""
        self._fs.invalidate_cache()
        found = []
        with store_errors(self.url, "does not say what lies in it"):
            for path, info in self._fs.find(self._root, detail=True).items():
                match = _BLOB.fullmatch(path.removeprefix(self._root).lstrip("/"))
                if match is not None:
                    modified = self._modified(path, info)
                    part = match["part"] is not None
                    found.append(ListedBlob(path, match["name"], int(info["size"]), modified, part))
        return found

    def remove(self, one: ListedBlob) -> bool:
        """Remove it, unless it is gone or was put again since. Returns whether it was removed."""
        self._fs.invalidate_cache(one.path)
        try:
            with store_errors(self.url, "removes no image", passing=FileNotFoundError):
                if self._modified(one.path, self._fs.info(one.path)) != one.modified:
                    return False
                self._fs.rm_file(one.path)
        except FileNotFoundError:
            return False
        return True

    def users(self) -> list[User]:
        """Who stands on the store's list. Raises `ConfigError` when a part of it is damaged."""
        self._fs.invalidate_cache()
        with store_errors(self.url, "does not say who uses it"):
            files = sorted(self._fs.find(f"{self._root}/users"))
            texts = {file: self._fs.cat_file(file) for file in files}
        return [_user(file, text) for file, text in texts.items()]

    def register_user(self, place: str) -> None:
        """Put the folder of a run or an evaluation on the list. Nothing to do for a store in that folder."""
        if "://" in self.url or not Path(self.url).is_relative_to(place):
            user = User(place=place, host=socket.gethostname())
            with store_errors(self.url, "takes nobody on its list"):
                write(self._fs, self._entry(place), user.model_dump_json().encode())

    def unregister_user(self, place: str) -> None:
        """Take it off the list. Raises `FileNotFoundError` when it is not there."""
        entry = self._entry(place)
        self._fs.invalidate_cache()
        with store_errors(self.url, "takes nobody off its list", passing=FileNotFoundError):
            self._fs.info(entry)  # S3 removes what is not there too, and says nothing
            self._fs.rm_file(entry)

    def _entry(self, place: str) -> str:
        return f"{self._root}/users/{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"

    def _modified(self, path: str, info: dict[str, Any]) -> float:
        """Listings of folders and of S3 have it; others are asked for each file."""
        value: Any = info.get("mtime", info.get("LastModified")) or self._fs.modified(path)
        return value.timestamp() if isinstance(value, datetime) else float(value)


def _user(file: str, text: bytes) -> User:
    try:
        return User.model_validate_json(text)
    except ValueError as error:
        raise ConfigError(
            f"{file}: damaged, so nobody knows who uses these images; nothing is removed. Write into it "
            '{"place": FOLDER, "host": NAME} of the run or evaluation, or remove it if that is gone for good'
        ) from error
