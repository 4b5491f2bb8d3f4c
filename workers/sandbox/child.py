"""What runs in the forked child: put on the jail, run the code, hand back its figures in one frame.

Invariants: not a byte of the model's code is compiled before every layer holds and the child has said so;
standard input and output are /dev/null, so printing cannot reach the frame; the environment is empty; the
process always ends here and never returns into the zygote.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import re
import signal
import sys
import tempfile
import traceback
import types
from dataclasses import dataclass
from typing import Any, NoReturn

from workers.sandbox import charts, kernel, landlock, limits, protocol, seccomp

_SOURCE = "<code>"
_RESERVE_BYTES = 16 << 20  # freed when memory runs out, so that the report can still be written
_DISK_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@dataclass(frozen=True)
class Jail:
    """Which layers a child puts on, found by the zygote's probe, and the paths it may read."""

    landlock: bool
    seccomp: bool
    unprivileged: bool
    readable: tuple[str, ...]
    devices: tuple[str, ...]


def confine(
    jail: Jail, limit: limits.Limits, base_bytes: int, folder: str, channel: int, parent: int
) -> None:
    """Put every layer on this process. Raises `OSError` when one that the probe found does not hold."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    kernel.close_all_but(channel)
    os.environ.clear()
    os.umask(0o077)
    os.chdir(folder)
    tempfile.tempdir = folder  # a library may have made it look for /tmp before the fork
    limits.drop_privileges(jail.unprivileged, parent)
    if jail.landlock:
        landlock.restrict(jail.readable, jail.devices, folder)
    limits.apply(limit, base_bytes)
    if jail.seccomp:
        seccomp.restrict()


def run(
    jail: Jail,
    limit: limits.Limits,
    base_bytes: int,
    folder: str,
    channel: int,
    parent: int,
    names: dict[str, Any],
    code: str,
) -> NoReturn:
    """The child's whole life."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            confine(jail, limit, base_bytes, folder, channel, parent)
        except Exception as error:  # noqa: BLE001 - whatever it is, the jail does not hold
            protocol.write_all(channel, protocol.UNARMED + str(error).encode())
        else:
            protocol.write_all(channel, protocol.ARMED)
            header, images = _draw(code, names, limit)
            protocol.write_all(channel, protocol.pack(header, b"".join(images)))
            status = 0
    finally:
        os._exit(status)


def _draw(code: str, names: dict[str, Any], limit: limits.Limits) -> tuple[dict[str, Any], list[bytes]]:
    """Run the code and collect its figures: what happened, and the images."""
    reserve = mmap.mmap(-1, _RESERVE_BYTES)
    random.seed(limit.seed)
    names["np"].random.seed(limit.seed % (1 << 32))
    module = types.ModuleType("__main__")
    module.__dict__.update(names)
    sys.modules["__main__"] = module
    sys.argv = [_SOURCE]
    try:
        try:
            exec(compile(code, _SOURCE, "exec"), module.__dict__)  # noqa: S102 - the jail's purpose
        except SystemExit as error:
            if error.code not in (None, 0):
                raise
        images, drawn = charts.figures(limit.max_figures, limit.max_pixels, limit.output_mb * limits.MEBIBYTE)
    except charts.Nothing as error:
        return {"status": "empty", "detail": str(error)}, []
    except charts.TooLarge as error:
        return {"status": "limit", "detail": str(error)}, []
    except BaseException as error:  # noqa: BLE001 - whatever the code raises is its result
        reserve.close()
        return _failure(error, code), []
    return {"status": "drawn", "sizes": [len(image) for image in images], "drawn": drawn}, images


def _failure(error: BaseException, code: str) -> dict[str, str]:
    """The error's type, message and the line of the code it came from."""
    try:
        message = (error.msg if isinstance(error, SyntaxError) else str(error))[:1000]
    except Exception:  # noqa: BLE001 - the code may define its own, broken, exception
        message = "(no message)"
    line = _line(error)
    lines = re.split("\r\n|\r|\n", code)  # as Python counts them
    where = f" (line {line}: {lines[line - 1].strip()[:200]})" if 0 < line <= len(lines) else ""
    detail = f"{type(error).__name__[:100]}: {message}{where}".encode(errors="replace").decode()
    full = isinstance(error, OSError) and error.errno in _DISK_FULL
    return {"status": "limit" if full or isinstance(error, MemoryError) else "raised", "detail": detail}


def _line(error: BaseException) -> int:
    """The deepest line of the model's code that the error passed, 0 when none."""
    if isinstance(error, SyntaxError) and error.filename == _SOURCE:
        return error.lineno or 0
    line = 0
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == _SOURCE:
            line = number
    return line
