"""The paths that jobs may read: Python and its packages, shared libraries, fonts, time zones.

Invariant: this project's folder, /proc, /sys, home folders and configuration are not among them.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/random")
_SYSTEM = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime")
_FONTS = ("/etc/fonts", "/usr/share/fonts", "/usr/local/share/fonts", "/usr/share/fontconfig")
_DATA = ("/usr/share/zoneinfo",)
PROJECT = str(Path(__file__).resolve().parents[3])


def packages() -> list[str]:
    """The import path without this project's folder, unless packages are installed there."""
    installed = PROJECT in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return [path for path in sys.path if path and (installed or path != PROJECT)]


def readable() -> list[str]:
    """The existing paths, both as written and resolved, shortest first, none inside another."""
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    prefixes = [f"{prefix}/lib" for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix}]
    wanted = [*packages(), *libraries, *prefixes, *_SYSTEM, *_FONTS, *_DATA]
    both = {form for path in wanted if path for form in (os.path.abspath(path), os.path.realpath(path))}
    kept: list[str] = []
    for path in sorted(both, key=len):
        inside = any(path.startswith(f"{other}/") for other in kept)
        if os.path.exists(path) and path != "/" and not inside:
            kept.append(path)
    return kept
