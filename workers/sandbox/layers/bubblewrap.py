"""Bubblewrap around the zygote, where it is installed: namespaces, a read-only root that holds only what
chart code needs, and one private folder.

The zygote starts itself anew inside, its own modules in an archive that it removes as soon as they are
loaded, so that no code of ours is visible to jobs. Invariants: bubblewrap is tried before it is relied on;
where it does not work, `enter` returns, and the zygote makes its namespaces by itself.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from workers.sandbox.layers import kernel, paths
from workers.sandbox.layers.world import World

logger = logging.getLogger(__name__)
INSIDE, USERS = "--inside", "--users"
_BASE = "/llmi-jobs"  # a name below which nothing is installed
_ARCHIVE = f"{_BASE}/zygote.zip"
_TRIAL_S = 30.0
# Of the zygote, in these namespaces: to mount jobs' folders, to seal the root, and as root to make a job
# somebody else and clean up after it. Jobs give up all of them.
_CAPABILITIES = ("SYS_ADMIN", "SYS_CHROOT", "SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL")
# Root does without a user namespace, in which it could become nobody else; unless it is root of a container.
_VARIANTS: tuple[tuple[str, ...], ...] = ((), ("--unshare-user",))


def enter(program: str, arguments: list[str], kept: int) -> None:
    """Become, by exec, the same zygote inside of `program`, with the descriptor `kept`; return where that
    does not work.
    """
    archive = _archive()
    os.set_inheritable(kept, True)
    why = b""
    for variant in _VARIANTS:
        python = [*_command(program, variant, archive), sys.executable, "-P", "-s"]
        os.lseek(archive, 0, os.SEEK_SET)  # reading uses it up
        trial = subprocess.run(
            [*python, "-c", "import workers.sandbox.jailed.zygote"],
            pass_fds=(archive,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_TRIAL_S,
        )
        if trial.returncode == 0:
            os.lseek(archive, 0, os.SEEK_SET)
            inside = [f"{INSIDE}={kept}", *([USERS] if variant or os.geteuid() != 0 else [])]
            os.execv(program, [*python, "-m", "workers.sandbox.jailed.zygote", *arguments, *inside])
        why = trial.stderr
    os.close(archive)
    logger.warning("bubblewrap does not work here: %s", why.decode(errors="replace").strip()[-300:])


def arrive(users: bool) -> World:
    """The world inside, once every module of the zygote is loaded. `users`: it is a user namespace."""
    os.unlink(_ARCHIVE)
    return World("bubblewrap", network=True, processes=True, users=users, base=_BASE, mounts=_can_mount())


def _command(program: str, variant: tuple[str, ...], archive: int) -> list[str]:
    """Everything before the program to run, its environment but for the import path as it is here."""
    readable = paths.readable()
    command = [program, *variant, "--unshare-ipc", "--unshare-net", "--unshare-pid", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--as-pid-1"]
    for capability in _CAPABILITIES:
        command += ["--cap-add", f"CAP_{capability}"]
    files = [*readable, *_interpreter(readable)]
    devices = [device for device in paths.DEVICES if os.path.exists(device)]
    for folder in sorted({str(parent) for path in (*files, *devices) for parent in Path(path).parents}):
        command += ["--dir", folder]  # which nobody may enter; those that bubblewrap adds are its own user's
    for path in files:
        command += ["--ro-bind", path, path]
    for device in devices:
        command += ["--dev-bind", device, device]
    command += ["--tmpfs", _BASE, "--file", str(archive), _ARCHIVE, "--remount-ro", "/", "--chdir", "/"]
    return [*command, "--setenv", "PYTHONPATH", _ARCHIVE, "--"]


def _interpreter(readable: list[str]) -> list[str]:
    """Python's own program, and what marks a virtual environment, where they are not readable anyway."""
    needed = (sys.executable, os.path.join(sys.prefix, "pyvenv.cfg"))
    return [
        path
        for path in needed
        if os.path.exists(path) and not any(path.startswith(f"{folder}/") for folder in readable)
    ]


def _archive() -> int:
    """A descriptor of the zygote's modules, as a zip that Python can import from."""
    descriptor = os.memfd_create("zygote", 0)
    sources = [Path("workers/__init__.py")]
    sources += [path.relative_to(paths.PROJECT) for path in Path(__file__).parents[1].rglob("*.py")]
    with open(descriptor, "wb", closefd=False) as file, zipfile.ZipFile(file, "w") as archive:
        for source in sources:
            archive.write(paths.PROJECT / source, source)
    return descriptor


def _can_mount() -> bool:
    """Whether jobs' folders can be mounts: not where the machine lets bubblewrap make namespaces, and nobody
    inside use them.
    """
    try:
        kernel.mount("tmpfs", _BASE, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV)
        try:
            kernel.make_read_only(_BASE)
        finally:
            kernel.unmount(_BASE)
    except OSError as error:
        logger.warning("jobs' folders are not mounts of their own: %s", error)
        return False
    return True
