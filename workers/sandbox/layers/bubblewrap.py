"""Outer layer by bubblewrap, where it is installed: namespaces, a read-only root with only what jobs need,
and one private folder.

The zygote restarts itself inside. Its modules are in an archive that it removes once they are loaded, so that
jobs do not see this project's code.

Invariants: bubblewrap is tried before it is used; where it does not work, `enter` returns, and the zygote
makes its namespaces itself (`namespaces`).
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from workers.sandbox.layers import kernel, paths
from workers.sandbox.layers.outer import OuterLayer

logger = logging.getLogger(__name__)
INSIDE, USERS = "--inside", "--users"
_BASE = "/llmi-jobs"  # nothing is installed below this name
_ARCHIVE = f"{_BASE}/zygote.zip"
_TRIAL_S = 30.0
# Of the zygote in these namespaces: to mount job folders, to make the root read-only, and as root to change a
# job's user and clean up after it. Jobs give up all of them.
_CAPABILITIES = ("SYS_ADMIN", "SYS_CHROOT", "SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL")
# Root needs no user namespace, in which it could not change to another user. The root of a container may need
# one.
_VARIANTS: tuple[tuple[str, ...], ...] = ((), ("--unshare-user",))


def enter(program: str, arguments: list[str], kept: int) -> None:
    """Restart this zygote inside bubblewrap, by exec. Returns only if that does not work.

    `program`: bubblewrap's path. `arguments`: the zygote's. `kept`: a descriptor to keep open.
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
            options = [f"{INSIDE}={kept}", *([USERS] if variant or os.geteuid() != 0 else [])]
            os.execv(program, [*python, "-m", "workers.sandbox.jailed.zygote", *arguments, *options])
        why = trial.stderr
    os.close(archive)
    logger.warning("bubblewrap does not work here: %s", why.decode(errors="replace").strip()[-300:])


def inside(users: bool) -> OuterLayer:
    """Finish the start inside bubblewrap, once all modules are loaded. `users`: it made a user namespace."""
    os.unlink(_ARCHIVE)
    return OuterLayer(
        "bubblewrap", network=True, processes=True, users=users, base=_BASE, mounts=_can_mount()
    )


def _command(program: str, variant: tuple[str, ...], archive: int) -> list[str]:
    """The command up to the program to run. The environment is kept, except for the import path."""
    readable = paths.readable()
    command = [program, *variant, "--unshare-ipc", "--unshare-net", "--unshare-pid", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--as-pid-1"]
    for capability in _CAPABILITIES:
        command += ["--cap-add", f"CAP_{capability}"]
    files = [*readable, *_interpreter(readable)]
    devices = [device for device in paths.DEVICES if os.path.exists(device)]
    for folder in sorted({str(parent) for path in (*files, *devices) for parent in Path(path).parents}):
        command += ["--dir", folder]  # mode 0755; folders that bubblewrap adds itself belong to its user only
    for path in files:
        command += ["--ro-bind", path, path]
    for device in devices:
        command += ["--dev-bind", device, device]
    command += ["--tmpfs", _BASE, "--file", str(archive), _ARCHIVE, "--remount-ro", "/", "--chdir", "/"]
    return [*command, "--setenv", "PYTHONPATH", _ARCHIVE, "--"]


def _interpreter(readable: list[str]) -> list[str]:
    """Python's executable and the file of a virtual environment, unless they are in `readable`."""
    needed = (sys.executable, os.path.join(sys.prefix, "pyvenv.cfg"))
    return [
        path
        for path in needed
        if os.path.exists(path) and not any(path.startswith(f"{folder}/") for folder in readable)
    ]


def _archive() -> int:
    """A descriptor of a zip archive with the zygote's modules, which Python can import from."""
    descriptor = os.memfd_create("zygote", 0)
    sources = [Path("workers/__init__.py")]
    sources += [path.relative_to(paths.PROJECT) for path in Path(__file__).parents[1].rglob("*.py")]
    with open(descriptor, "wb", closefd=False) as file, zipfile.ZipFile(file, "w") as archive:
        for source in sources:
            archive.write(paths.PROJECT / source, source)
    return descriptor


def _can_mount() -> bool:
    """Whether job folders can be mounts.

    Some machines let bubblewrap make namespaces, but nothing mount in them.
    """
    try:
        kernel.mount("tmpfs", _BASE, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV)
        try:
            kernel.make_read_only(_BASE)
        finally:
            kernel.unmount(_BASE)
    except OSError as error:
        logger.warning("job folders are not separate mounts: %s", error)
        return False
    return True
