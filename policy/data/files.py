"""Checks of a data file that do not depend on its format, and values of it shortened for messages.

Invariant: a message is short and printable, whatever the file contains.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from workers.errors import ConfigError
from workers.text.names import near_names

SHOWN = 160  # characters of a value in a message
NAMES = 12  # names in one message
HEAD = 8  # bytes that identify a format
NEAR = 0.8  # likeness from which a name counts as a misspelt one
PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}
# Other names for the key `images` that are not similar enough to it.
IMAGES = dict.fromkeys(
    (
        *("img", "image_path", "image_paths", "image_file", "image_files", "picture", "pictures"),
        *("input_image", "input_images", "img_path", "image_url", "image_urls", "image_base64"),
        *("photo", "photos", "pic", "pics"),
    ),
    "images",
)


def shown(value: object) -> str:
    """Shorten `value` for a message: printable, at most `SHOWN` characters, from both ends."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) > SHOWN:  # the end of a path matters more than its middle
        half = SHOWN // 2
        return f"{_printable(text[:half])}…{_printable(text[-half:])} ({len(text):,} characters)"
    return _printable(text)


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def some(names: Iterable[str]) -> str:
    """List names for a message, at most `NAMES` of them."""
    every = [shown(name) for name in names]
    more = f" and {len(every) - NAMES} more" if len(every) > NAMES else ""
    return ", ".join(every[:NAMES]) + more


def misnamed(
    given: Iterable[str], known: Iterable[str], also: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Find misspelt names: `given` ones that resemble a `known` one that is absent, as misspelt -> known.

    `also`: other names for known ones.
    """
    names = list(given)
    absent = [name for name in known if name not in names]
    found: dict[str, str] = {}
    for name in names:
        plain = name.strip().lower()
        near = near_names(plain, absent, cutoff=NEAR)
        meant = near[0] if near else (also or {}).get(plain, "")
        if name not in known and meant in absent:
            found[name] = meant
    return found


def head(path: Path, what: str) -> bytes:
    """Read the first bytes of a data file. `what`: the kind of file that messages ask for.

    Raises `ConfigError` if it is missing, not a file, not readable, empty or compressed.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ConfigError(f"{path}: is a folder; name {what} in it")
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path}: is not a file; name {what}")
        with path.open("rb") as file:
            first = file.read(HEAD)
    except ConfigError:  # a ValueError, too
        raise
    except FileNotFoundError as error:
        raise ConfigError(f"{shown(str(path))}: does not exist; name {what}") from error
    except PermissionError as error:
        raise ConfigError(
            f"{path}: is not readable for this user; change its permissions, or name another file"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"{shown(str(path))}: cannot be read ({why}); name {what}") from error
    if not first:
        raise ConfigError(f"{path}: is empty; write or download it again")
    for magic, name in PACKED.items():
        if first.startswith(magic):
            raise ConfigError(f"{path}: is compressed ({name}); unpack it, and name the unpacked file")
    return first
