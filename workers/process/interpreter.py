"""The environment of every Python process of this program, independent of the folder and the shell around it.

A folder `verl/` or a file `redis.py` where a command was given would be imported in place of the library, a
Latin-1 locale would garble files, a notebook's MPLBACKEND names a module that is not there, a HOME that is
`/` takes no cache. Invariants: nothing is imported from the working directory unless PYTHONPATH names it;
text is UTF-8; every value that the user set and that works is kept.
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
# With PYTHONSAFEPATH every interpreter below is started as by -P.
VARIABLES = {"PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", "MPLBACKEND": "Agg"}
SOCKET_BYTES = 107  # of the path of a Unix socket, at most
VLLM_ROOM = 38  # a slash and a UUID, below VLLM_RPC_BASE_PATH
SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def restart_if_needed() -> None:
    """Replace this process by the same command with other variables, if it reads and writes files in another
    encoding than UTF-8 or imports modules from the working directory.
    """
    utf8 = locale.getpreferredencoding(False).lower().replace("-", "") == "utf8"
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if sys.flags.ignore_environment or (utf8 and (len(entries) == 1 or "" not in entries)):
        return
    env = dict(os.environ)
    set_up(env)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], env)


def set_up_process() -> None:
    """Set the variables of this process; call it before anything heavy is imported.

    On a terminal of another encoding, characters that it lacks are replaced and do not end the command.
    """
    set_up(os.environ)
    tempfile.tempdir = None  # as TMPDIR is now
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # replaced by a test, or closed
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def set_up(env: MutableMapping[str, str]) -> None:
    """Change `env` so that a process started with it meets the invariants above; HOME is left as it is."""
    env.update(VARIABLES)
    env.pop("PYTHONIOENCODING", None)  # it would win over PYTHONUTF8
    path = [os.path.abspath(entry) for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if path:
        env["PYTHONPATH"] = os.pathsep.join(path)
    else:
        env.pop("PYTHONPATH", None)
    if (named := env.get("TMPDIR")) is not None and not _writable(named):
        env["TMPDIR"] = next((folder for folder in SHORT if _writable(folder)), "/tmp")
        logger.warning("TMPDIR: %s is no folder that can be written; %s is used", named, env["TMPDIR"])


def child_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process to be started: as `set_up`, and with a HOME that can be written.

    A model cache in the old HOME is still read.
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
    except (KeyError, OSError):  # a container's user without a name, for which torch asks
        found["USER"] = f"uid{os.getuid()}"
    return found


def private_folder(name: str) -> Path:
    """A folder for `name` below the temporary folder that is this user's alone; the same for each call."""
    folder = Path(tempfile.gettempdir()) / f"llmi-{name}-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return folder
    return Path(tempfile.mkdtemp(prefix=f"llmi-{name}-"))  # somebody else made it


def short_path(target: Path, room: int) -> Path:
    """A path to `target` that is short enough for a socket's name of `room` bytes below it.

    A folder whose path is too long is reached through a link, so that what is written still lies in it.
    """
    target = target.absolute()
    if len(os.fsencode(target)) + room <= SOCKET_BYTES:
        return target
    mark = hashlib.sha256(os.fsencode(target)).hexdigest()[:8]
    for above in filter(_writable, SHORT):
        link = Path(above) / f"llmi-{os.getuid()}-{mark}"
        with contextlib.suppress(FileExistsError):
            link.symlink_to(target)
        if link.is_symlink() and link.lstat().st_uid == os.getuid() and link.readlink() == target:
            return link
    return target


def _home() -> str:
    """By the table of users, where HOME is not set; empty where it has no such user."""
    home = os.path.expanduser("~")
    return "" if home == "~" else home


def _writable(folder: str) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
