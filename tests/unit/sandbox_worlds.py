"""Machines to run the jail on: this one, one with user namespaces only, and one with none (a container)."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import functools
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from workers.errors import JobError
from workers.sandbox import client, kernel, process, seccomp
from workers.settings import CodeSettings

_CAP_SYS_ADMIN = 21
_PR_CAPBSET_DROP = 24
_UNSHARE, _MOUNT = (272, 165) if kernel.X86 else (97, 40)
SECRET_NAME, SECRET = "LLMI_TEST_SECRET", "do-not-leak-this"  # in the environment of every worker here
CHART = "plt.figure().text(0.5, 0.5, 'still here')"


def _user_namespaces_only() -> None:
    """Before exec: root without CAP_SYS_ADMIN, so that only a user namespace gives the others."""
    ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_SYS_ADMIN, 0, 0, 0)


def _no_namespaces() -> None:
    """Before exec: unshare and mount are refused, as a container's default filter does."""
    refuse = (0x06, 0, 0, 0x00050000 | errno.EPERM)
    allow = (0x06, 0, 0, 0x7FFF0000)
    kernel.prctl("no_new_privs", kernel.PR_SET_NO_NEW_PRIVS, 1)
    load = (0x20, 0, 0, 0)
    seccomp.install([load, (0x15, 0, 1, _UNSHARE), refuse, (0x15, 0, 1, _MOUNT), refuse, allow])


WORLDS: dict[str, Callable[[], None] | None] = {
    "here": None,
    "userns": _user_namespaces_only,
    "container": _no_namespaces,
}


@contextlib.contextmanager
def world(name: str) -> Iterator[None]:
    """Zygotes that are started in this block live on such a machine."""
    if name == "userns" and os.geteuid() != 0:
        pytest.skip("without root, this machine is already such a one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRET_NAME, SECRET)
        prepare = WORLDS[name]
        if prepare is not None:
            patch.setattr(
                process.subprocess, "Popen", functools.partial(subprocess.Popen, preexec_fn=prepare)
            )
        yield


def started(name: str) -> client.Renderer:
    """A renderer whose zygote lives on such a machine."""
    renderer = client.Renderer()
    with world(name):
        renderer.start(CodeSettings())
    return renderer


@functools.cache
def shared(name: str) -> client.Renderer:
    """One renderer per kind of machine for all tests of a process: starting a zygote costs seconds."""
    renderer = started(name)
    atexit.register(renderer.close)
    return renderer


def failure(renderer: client.Renderer, code: str, settings: CodeSettings) -> JobError:
    """The failure that code ends in."""
    with pytest.raises(JobError) as caught:
        renderer.render(code, settings)
    return caught.value
