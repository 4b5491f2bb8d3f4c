"""The environment of every Python process of this program.

It does not depend on the working directory or the shell: a folder `verl/` or a file `redis.py` there would be
imported instead of the library, a Latin-1 locale would garble files, a notebook's MPLBACKEND names a module
that does not exist here, and no cache can be written to a HOME of `/`.

Invariants:
- Nothing is imported from the working directory unless PYTHONPATH names it.
- Text is UTF-8.
- A value that the user set and that works is kept.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import locale
import logging
import os
import stat
import sys
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path

logger = logging.getLogger(__name__)
PYTHON = (sys.executable, "-P")  # -P: the working directory is not on the path
# PYTHONSAFEPATH does for child interpreters what -P does.
VARIABLES = {"PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", "MPLBACKEND": "Agg"}
SOCKET_BYTES = 107  # longest path of a Unix socket
VLLM_ROOM = 38  # vLLM appends a slash and a UUID to VLLM_RPC_BASE_PATH
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def restart_if_needed() -> None:
    """Execute the same command again with the right environment, if this process uses another encoding than
    UTF-8 or imports modules from the working directory.
    """
    utf8 = locale.getpreferredencoding(False).lower().replace("-", "") == "utf8"
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if sys.flags.ignore_environment or (utf8 and (len(entries) == 1 or "" not in entries)):
        return
    env = dict(os.environ)
    set_up(env)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], env)


def set_up_process() -> None:
    """Set the variables of this process. Call it before large imports.

    Characters that the terminal's encoding lacks are replaced instead of raising.
    """
    set_up(os.environ)
    tempfile.tempdir = None  # read TMPDIR again
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # replaced by a test, or closed
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def set_up(env: MutableMapping[str, str]) -> None:
    """Change `env` so that a process started with it meets the invariants above. HOME is unchanged."""
    env.update(VARIABLES)
    env.pop("PYTHONIOENCODING", None)  # it overrides PYTHONUTF8
    path = [os.path.abspath(entry) for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if path:
        env["PYTHONPATH"] = os.pathsep.join(path)
    else:
        env.pop("PYTHONPATH", None)
    if (named := env.get("TMPDIR")) is not None and not _writable(named):
        env["TMPDIR"] = next((folder for folder in SHORT_FOLDERS if _writable(folder)), "/tmp")
        logger.warning("TMPDIR: %s is not a writable folder; using %s", named, env["TMPDIR"])


def child_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child process: as by `set_up`, with a writable HOME.

    A model cache in the old HOME is still used.
    """
    found = dict(env)
    set_up(found)
    home = found.get("HOME") or _home()
    if home and home != "/" and _writable(home):
        found["HOME"] = home
    else:
        cache = Path(home or "/") / ".cache" / "huggingface"
        if cache.is_dir():
            found.setdefault("HF_HOME", str(cache))
        found["HOME"] = str(private_folder("home"))
    folder = Path(found.get("TMPDIR") or tempfile.gettempdir())
    if (link := short_path(folder, VLLM_ROOM)) != folder.absolute():
        found.setdefault("VLLM_RPC_BASE_PATH", str(link))
    try:
        getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name; torch needs one
        found["USER"] = f"uid{os.getuid()}"
    return found


def private_folder(name: str) -> Path:
    """A folder for `name` in the temporary folder, private to this user, the same for each call."""
    folder = Path(tempfile.gettempdir()) / f"llmi-{name}-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return folder
    return Path(tempfile.mkdtemp(prefix=f"llmi-{name}-"))  # another user created it


def short_path(target: Path, room: int) -> Path:
    """A path to `target` that leaves `room` bytes for the name of a Unix socket in it.

    If the path of `target` is too long, this is a symbolic link to it.
    """
    target = target.absolute()
    if len(os.fsencode(target)) + room <= SOCKET_BYTES:
        return target
    mark = hashlib.sha256(os.fsencode(target)).hexdigest()[:8]
    for above in filter(_writable, SHORT_FOLDERS):
        link = Path(above) / f"llmi-{os.getuid()}-{mark}"
        with contextlib.suppress(FileExistsError):
            link.symlink_to(target)
        if link.is_symlink() and link.lstat().st_uid == os.getuid() and link.readlink() == target:
            return link
    return target


def _home() -> str:
    """The home folder in the user database; empty for an unknown user."""
    home = os.path.expanduser("~")
    return "" if home == "~" else home


def _writable(folder: str) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
