"""Lists the blobs of a store, their age, and the runs that use the store, for garbage collection.

Runs and evaluations with a store outside their own folder are registered in it, in `<url>/users/`.

Invariants:
- Listing changes nothing.
- Only blobs and unfinished blobs are listed; other files are ignored.
- A blob that was put again after it was listed is not removed.
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
    """`path`: in the store's file system. `sha256`: its name. `size`: bytes. `modified`: Unix seconds by the
    store's clock. `part`: unfinished; its writer is running or was killed.
    """

    path: str
    sha256: str
    size: int
    modified: float
    part: bool = False


class User(Message):
    """A run or an evaluation that refers to blobs. `place`: its folder or URL, as seen from `host`."""

    place: str
    host: str


class BlobListing:
    """The blobs and users of the store at `url`. Blocking. Every method raises
    `InfrastructureFault(PROVIDER_DOWN)` when the store fails.
    """

    def __init__(self, url: str):
        self.url = url
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")

    def blobs(self) -> list[ListedBlob]:
        """All blobs and unfinished blobs, from one listing."""
        self._fs.invalidate_cache()
        found = []
        with store_errors(self.url, "could not be listed"):
            for path, info in self._fs.find(self._root, detail=True).items():
                match = _BLOB.fullmatch(path.removeprefix(self._root).lstrip("/"))
                if match is not None:
                    modified = self._modified(path, info)
                    part = match["part"] is not None
                    found.append(ListedBlob(path, match["name"], int(info["size"]), modified, part))
        return found

    def remove(self, one: ListedBlob) -> bool:
        """Remove a blob unless it is gone or was put again. Returns whether it was removed."""
        self._fs.invalidate_cache(one.path)
        try:
            with store_errors(self.url, "could not remove an image", passing=FileNotFoundError):
                if self._modified(one.path, self._fs.info(one.path)) != one.modified:
                    return False
                self._fs.rm_file(one.path)
        except FileNotFoundError:
            return False
        return True

    def users(self) -> list[User]:
        """The registered users. Raises `ConfigError` when an entry is damaged."""
        self._fs.invalidate_cache()
        with store_errors(self.url, "could not list its users"):
            files = sorted(self._fs.find(f"{self._root}/users"))
            texts = {file: self._fs.cat_file(file) for file in files}
        return [_user(file, text) for file, text in texts.items()]

    def register_user(self, place: str) -> None:
        """Register the folder of a run or an evaluation. Does nothing for a store inside that folder."""
        if "://" in self.url or not Path(self.url).is_relative_to(place):
            user = User(place=place, host=socket.gethostname())
            with store_errors(self.url, "could not register a user"):
                write(self._fs, self._entry(place), user.model_dump_json().encode())

    def unregister_user(self, place: str) -> None:
        """Remove the entry of a run or an evaluation. Raises `FileNotFoundError` when there is none."""
        entry = self._entry(place)
        self._fs.invalidate_cache()
        with store_errors(self.url, "could not remove a user", passing=FileNotFoundError):
            self._fs.info(entry)  # S3 does not report that an object to remove is missing
            self._fs.rm_file(entry)

    def _entry(self, place: str) -> str:
        return f"{self._root}/users/{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"

    def _modified(self, path: str, info: dict[str, Any]) -> float:
        """Modification time. Listings of folders and of S3 include it; other stores need a call per file."""
        value: Any = info.get("mtime", info.get("LastModified")) or self._fs.modified(path)
        return value.timestamp() if isinstance(value, datetime) else float(value)


def _user(file: str, text: bytes) -> User:
    try:
        return User.model_validate_json(text)
    except ValueError as error:
        raise ConfigError(
            f"{file}: damaged, so it is unknown who uses these images, and nothing is removed. Write into it "
            '{"place": FOLDER, "host": NAME} of the run or evaluation, or remove it if that is gone for good'
        ) from error
