"""The input images of prompts, in every form that datasets use, read on demand.

An image is given as encoded bytes, a struct {bytes, path} (as `datasets` writes it) or {image}, or text: a
path relative to the data file, a file:// URL, a data URI or base64. A row has one image or a list.

Invariants:
- anything that cannot be read raises a short `ConfigError` with file, row, position and what to do;
- nothing is downloaded;
- a file over the size limit of images is not read.
"""

from __future__ import annotations

import math
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from policy.data.files import shown, some
from workers import images, pixels
from workers.errors import ConfigError, InfrastructureFault

SHAPES = "give encoded bytes, {bytes, path}, a path relative to the file, a data URI or base64"
FIELDS = ("bytes", "image", "path")  # of a struct; the first that is not empty counts
NESTED = 3  # levels of structs, such as {image: {bytes, path}}
LONGEST_PATH, LONGEST_SCHEME = 4096, 16
LEAST_BASE64 = 20  # characters; a shorter text is a file name


@dataclass(frozen=True)
class InputImage:
    """One image of a prompt.

    `value`: a Python value, or a pyarrow scalar that is converted when it is read. `folder`: for relative
    paths. `where`: file, row and position, for messages.
    """

    value: Any
    folder: Path
    where: str

    def read(self) -> bytes:
        """Read the encoded image, without validating it. Raises `ConfigError`."""
        value = self.value.as_py() if hasattr(self.value, "as_py") else self.value
        for _ in range(NESTED):
            if isinstance(value, dict):
                value = self._field(value)
        if isinstance(value, bytes | bytearray) and value:
            return bytes(value)
        if isinstance(value, str) and value:
            return self._of_text(value)
        raise ConfigError(f"{self.where}: neither bytes nor a path; {SHAPES}")

    def _field(self, value: dict[str, Any]) -> Any:
        if not set(FIELDS) & set(value):
            raise ConfigError(f"{self.where}: has the keys {some(map(str, value))}; {SHAPES}")
        return next((value[name] for name in FIELDS if value.get(name)), None)

    def _of_text(self, text: str) -> bytes:
        if text.startswith("data:"):
            head, _, _ = text.partition(",")
            if not head.endswith(";base64"):
                raise ConfigError(f"{self.where}: a data URI without base64; {SHAPES}")
            return self._base64(text)
        scheme, mark, rest = text.partition("://")
        if not mark or len(scheme) > LONGEST_SCHEME:
            return self._of_path(text, text)
        if scheme.lower() != "file":
            raise ConfigError(
                f"{self.where}: {shown(text)} is not downloaded, because a run must not depend on a server; "
                "download it, and give the file's path or bytes"
            )
        host, slash, path = rest.partition("/")
        if host not in ("", "localhost"):
            raise ConfigError(f"{self.where}: {shown(text)} is on another machine; copy it to this one")
        return self._of_path(unquote(slash + path), text)

    def _of_path(self, name: str, text: str) -> bytes:
        """Read the file of this name; if there is none, decode the text as base64 if possible."""
        path, limit = self.folder / name, pixels.DEFAULT_LIMITS.max_bytes
        try:
            if len(name) > LONGEST_PATH:
                raise FileNotFoundError(0, "no such file")
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{self.where}: cannot read {shown(str(path))}: it is not a file")
            if status.st_size > limit:
                raise ConfigError(
                    f"{self.where}: {shown(str(path))} has {status.st_size:,} bytes, over the limit of "
                    f"{limit:,}; make it smaller"
                )
            return path.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            if isinstance(error, ConfigError):
                raise
            if len(text) >= LEAST_BASE64 and "." not in text and "://" not in text:
                try:
                    return self._base64(text)
                except ConfigError:
                    pass
            why = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"{self.where}: cannot read {shown(str(path))}: {why}; {SHAPES}") from error

    def _base64(self, text: str) -> bytes:
        try:
            data = images.from_base64("".join(text.split()))
        except InfrastructureFault as error:
            raise ConfigError(
                f"{self.where}: neither a file nor base64 of an image ({shown(error.detail)}); {SHAPES}"
            ) from error
        if not data:
            raise ConfigError(f"{self.where}: an empty data URI; {SHAPES}")
        return data


def of_cell(cell: Any, folder: Path, where: str) -> tuple[InputImage, ...]:
    """The images in a cell of a table (a pyarrow scalar or None), which holds a list of images or one.

    None, NaN, empty lists and empty structs are no image. Raises `ConfigError`.
    """
    cell = _plain(cell)
    if _empty(cell):
        return ()
    several = _is_list(cell)
    items = [_plain(item) for item in cell] if several else [cell]
    empty = [_empty(item) for item in items]
    if all(empty):
        return ()
    found = []
    for number, item in enumerate(items):
        place = f"{where}: images[{number}]" if several else f"{where}: images"
        if empty[number]:
            raise ConfigError(f"{place}: is empty; leave it out, or {SHAPES}")
        if not _is_image(item):
            raise ConfigError(f"{place}: is of type {shown(str(item.type))}; {SHAPES}")
        found.append(InputImage(item, folder, place))
    return tuple(found)


def _plain(cell: Any) -> Any:
    """The scalar in an extension or dictionary scalar."""
    import pyarrow as pa

    while isinstance(cell, pa.ExtensionScalar | pa.DictionaryScalar):
        cell = cell.value
    return cell


def _is_list(cell: Any) -> bool:
    import pyarrow as pa

    lists = pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar
    return isinstance(cell, lists) and not isinstance(cell, pa.MapScalar)


def _is_image(cell: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    kinds = (types.is_struct, types.is_string, types.is_large_string, types.is_string_view)
    bytes_kinds = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    return any(kind(cell.type) for kind in (*kinds, *bytes_kinds))


def _empty(cell: Any) -> bool:
    """Whether a cell is empty; copies no bytes."""
    import pyarrow as pa

    if cell is None or not cell.is_valid:
        return True
    if isinstance(cell, pa.StructScalar):
        return all(_empty(_plain(value)) for value in cell.values())
    if _is_list(cell):
        return len(cell) == 0
    if pa.types.is_floating(cell.type):
        return math.isnan(cell.as_py())
    return hasattr(cell, "as_buffer") and cell.as_buffer().size == 0
