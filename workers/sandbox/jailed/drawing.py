"""The job that draws charts: run the model's code, and collect the figures it drew.

Invariant: an exception of the code is a result, with its message and the line of the code that raised it.
"""

from __future__ import annotations

import errno
import functools
import mmap
import os
import random
import sys
import tempfile
import traceback
import types
from typing import Any

from workers.sandbox.charts import collect
from workers.sandbox.charts import style as charts
from workers.sandbox.jailed.child import Report

_SOURCE = "<code>"
_RESERVE_BYTES = 16 << 20  # freed when memory runs out, so that the report can still be written
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_DISK_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def warm(base: str) -> functools.partial[Report]:
    """Import the libraries, with a folder for matplotlib below `base`, and return `draw` bound to them."""
    os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="matplotlib-", dir=base)
    return functools.partial(draw, charts.warm())


def draw(warm: charts.Warm, options: dict[str, Any], code: memoryview) -> Report:
    """Run the code and collect its figures: what happened, and the pixels of each figure in turn.

    `options`: `seed`, `max_figures` (kept), `max_pixels` (of all of them together).
    """
    text = str(code, "utf-8", "surrogatepass")
    reserve = mmap.mmap(-1, _RESERVE_BYTES)
    random.seed(options["seed"])
    warm.names["np"].random.seed(options["seed"] % (1 << 32))
    module = types.ModuleType("__main__")
    module.__dict__.update(warm.names)
    sys.modules["__main__"] = module
    sys.argv = [_SOURCE]
    saved = collect.SavedFigures(warm.fallback, options["max_pixels"])
    saved.install()
    try:
        try:
            exec(compile(text, _SOURCE, "exec"), module.__dict__)  # noqa: S102 - the jail's purpose
        except SystemExit as error:
            if error.code not in (None, 0):
                raise
        pictures, count = collect.figures(saved, options["max_figures"], options["max_pixels"])
        pixels = [picture.tobytes() for picture in pictures]
    except charts.NoFigure as error:
        return Report({"status": "empty", "detail": str(error)})
    except charts.MissingGlyphs as error:
        return Report({"status": "glyphs", "detail": str(error)})
    except charts.TooLarge as error:
        return Report({"status": "limit", "detail": str(error)})
    except BaseException as error:  # noqa: BLE001 - an exception of the code is its result
        reserve.close()
        return Report(_failure(error, text))
    figures = [(picture.mode, picture.width, picture.height) for picture in pictures]
    return Report({"status": "drawn", "figures": figures, "drawn": count}, sum(map(len, pixels)), pixels)


def _failure(error: BaseException, code: str) -> dict[str, str]:
    """The header for an exception: its type, message and the line of the code that raised it."""
    try:
        message = (error.msg if isinstance(error, SyntaxError) else str(error))[:1000]
    except Exception:  # noqa: BLE001 - the code may define its own, broken, exception
        message = "(no message)"
    line = _line(error)
    lines = code.replace("\r\n", "\n").replace("\r", "\n").split("\n")  # as Python counts them
    where = f" (line {line}: {lines[line - 1].strip()[:200]})" if 0 < line <= len(lines) else ""
    detail = f"{type(error).__name__[:100]}: {message}{where}".encode(errors="replace").decode()
    if isinstance(error, OSError) and error.errno in _READ_ONLY and os.getcwd() == "/":
        detail += "; this worker gives code no folder to write files in"
    full = isinstance(error, OSError) and error.errno in _DISK_FULL
    return {"status": "limit" if full or isinstance(error, MemoryError) else "raised", "detail": detail}


def _line(error: BaseException) -> int:
    """The deepest line of the model's code in the traceback, 0 when there is none."""
    if isinstance(error, SyntaxError) and error.filename == _SOURCE:
        return error.lineno or 0
    line = 0
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == _SOURCE:
            line = number
    return line
