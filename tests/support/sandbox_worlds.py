"""Machines to run the jail on, and one zygote for each.

`here` is this one, with both layers. `container` has no namespaces, so that the inner layer is alone; on
those called `outer` the kernel has neither Landlock nor seccomp, so that the outer one is. The others have
both, the outer one made in another way than here.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

import psutil
import pytest
from sandbox_attempts import SECRET, SECRET_NAME

from workers.errors import JobError
from workers.sandbox import process
from workers.sandbox.layers import kernel, seccomp
from workers.sandbox.renderer import Renderer
from workers.settings import CodeSettings

_CAP_SYS_ADMIN = 21
_PR_CAPBSET_DROP = 24
_LOAD_CALL, _LOAD_ARGUMENT, _RETURN, _EQUALS = (0x20, 0, 0, 0), (0x20, 0, 0, 16), 0x06, 0x15
_REFUSE, _ALLOW = (_RETURN, 0, 0, 0x00050000 | errno.EPERM), (_RETURN, 0, 0, 0x7FFF0000)
_UNSHARE, _MOUNT, _MOUNT_SETATTR = (272, 165, 442) if kernel.X86 else (97, 40, 442)
_PRCTL, _SECCOMP, _LANDLOCK = (157, 317, 444) if kernel.X86 else (167, 277, 444)
POLL_S = 10.0
CHART = "plt.figure().text(0.5, 0.5, 'still here')"


def _refusing(*instructions: seccomp.Instruction) -> None:
    kernel.prctl("no_new_privs", kernel.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.install([_LOAD_CALL, *instructions, _ALLOW])


def _refused(call: int) -> list[seccomp.Instruction]:
    return [(_EQUALS, 0, 1, call), _REFUSE]


# Each before exec.


def _user_namespaces_only() -> None:
    """Root without CAP_SYS_ADMIN, so that only a user namespace gives the others."""
    ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_SYS_ADMIN, 0, 0, 0)


def _no_namespaces() -> None:
    """Like a container's default filter."""
    _refusing(*_refused(_UNSHARE), *_refused(_MOUNT))


def _no_namespaces_and_no_questions() -> None:
    """A container with another listener for its filters, such as LXD."""
    _refusing(*_refused(_UNSHARE), *_refused(_MOUNT), *_refused(_SECCOMP))


def _no_namespaces_and_no_landlock() -> None:
    _refusing(*_refused(_UNSHARE), *_refused(_MOUNT), *_refused(_LANDLOCK))


def _no_inner_layer() -> None:
    prctl = [(_EQUALS, 0, 3, _PRCTL), _LOAD_ARGUMENT, (_EQUALS, 0, 1, kernel.PR_SET_SECCOMP), _REFUSE]
    _refusing(*_refused(_LANDLOCK), *prctl)


def _user_namespaces_and_no_inner_layer() -> None:
    """Jobs keep the user of the zygote."""
    _user_namespaces_only()
    _no_inner_layer()


def _no_mounts_inside() -> None:
    """A machine where bubblewrap may make namespaces but not mount in them, as by AppArmor's profile."""
    _refusing(*_refused(_MOUNT_SETATTR))


class Machine(NamedTuple):
    prepare: Callable[[], None] | None = None
    bubblewrap: bool = False


MACHINES = {
    "here": Machine(bubblewrap=True),
    "namespaces": Machine(),
    "user namespaces": Machine(_user_namespaces_only),
    "bubblewrap, user namespaces": Machine(_user_namespaces_only, bubblewrap=True),
    "bubblewrap without mounts": Machine(_no_mounts_inside, bubblewrap=True),
    "container": Machine(_no_namespaces, bubblewrap=True),
    "container without questions": Machine(_no_namespaces_and_no_questions, bubblewrap=True),
    "container without landlock": Machine(_no_namespaces_and_no_landlock, bubblewrap=True),
    "outer": Machine(_no_inner_layer),
    "outer, user namespaces": Machine(_user_namespaces_and_no_inner_layer),
    "outer by bubblewrap": Machine(_no_inner_layer, bubblewrap=True),
}


@contextlib.contextmanager
def world(name: str) -> Iterator[None]:
    """Zygotes started in this block run on such a machine."""
    machine = MACHINES[name]
    if "user namespaces" in name and os.geteuid() != 0:
        pytest.skip("without root, this machine is already such a one")
    if "bubblewrap" in name and not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRET_NAME, SECRET)
        if not machine.bubblewrap:
            patch.setattr(process.shutil, "which", lambda _: None)
        if machine.prepare is not None:
            patch.setattr(
                process.subprocess, "Popen", functools.partial(subprocess.Popen, preexec_fn=machine.prepare)
            )
        yield


def started(name: str) -> Renderer:
    """A renderer with its zygote on such a machine."""
    renderer = Renderer()
    with world(name):
        renderer.start(CodeSettings(require=()))
    return renderer


def zygote(renderer: Renderer) -> psutil.Process:
    """The process that forks the jobs."""
    assert renderer._zygote is not None
    return forking(renderer._zygote)


def forking(started: process.ZygoteProcess) -> psutil.Process:
    """The zygote's own process: with a process namespace, its parent outside only waits for it."""
    first = psutil.Process(started.pid)
    return first.children()[0] if started.layers["processes"] else first


@functools.cache
def shared(name: str) -> Renderer:
    """One renderer per kind of machine for all tests of a process: starting a zygote costs seconds."""
    renderer = started(name)
    atexit.register(renderer.close)
    return renderer


def failure(renderer: Renderer, code: str, settings: CodeSettings) -> JobError:
    """The failure that code ends in."""
    with pytest.raises(JobError) as caught:
        renderer.render(code, settings)
    return caught.value
