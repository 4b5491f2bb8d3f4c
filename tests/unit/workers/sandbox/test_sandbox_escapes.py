"""What hostile code tries, on machines with both layers of the jail and with either alone; after each attempt
an ordinary chart still renders, and no process is left.
"""

from __future__ import annotations

import glob
import tempfile
import threading
from collections.abc import Iterator

import pytest
from sandbox_attempts import CALLS, REACH, SECRET, WITHIN
from sandbox_worlds import CHART, failure, shared, started, zygote
from waiting import wait_until

from workers.errors import Cause
from workers.sandbox.layers import kernel
from workers.sandbox.renderer import Renderer
from workers.settings import CodeSettings

SETTINGS = CodeSettings(cpu_s=5, wall_s=20, memory_mb=512, output_mb=4, require=())
INNER, OUTER = ("here", "container"), ("outer", "outer by bubblewrap")
ROOT = "outer, user namespaces"  # as root, whose processes no limit counts: where less than all is required
everywhere = pytest.mark.parametrize("renderer", [*INNER, *OUTER, ROOT], indirect=True, scope="module")
with_the_inner_layer = pytest.mark.parametrize("renderer", INNER, indirect=True, scope="module")
with_the_outer_layer_alone = pytest.mark.parametrize("renderer", OUTER, indirect=True, scope="module")


@pytest.fixture(scope="module")
def renderer(request: pytest.FixtureRequest) -> Renderer:
    return shared(request.param)


@pytest.fixture(autouse=True)
def _ordinary_chart_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    if "renderer" not in request.fixturenames:
        yield
        return
    renderer = request.getfixturevalue("renderer")
    yield
    assert zygote(renderer).children(recursive=True) == []
    assert len(renderer.render(CHART, SETTINGS).images) == 1


def _escapes(renderer: Renderer, code: str) -> bool:
    error = failure(renderer, f"{code}\nraise RuntimeError('ESCAPED')", SETTINGS)
    assert error.cause is Cause.CODE_RAISED
    assert SECRET not in error.detail
    return "ESCAPED" in error.detail or "ended without a result" in error.detail


@everywhere
@pytest.mark.parametrize("code", REACH.values(), ids=REACH)
def test_the_outside_is_unreachable(renderer: Renderer, code: str) -> None:
    assert not _escapes(renderer, code)


@with_the_inner_layer
@pytest.mark.parametrize("code", WITHIN.values(), ids=WITHIN)
def test_refused(renderer: Renderer, code: str) -> None:
    assert not _escapes(renderer, code)


@with_the_outer_layer_alone
@pytest.mark.parametrize("code", WITHIN.values(), ids=WITHIN)
def test_processes_allowed_by_the_outer_layer_end_with_the_job(renderer: Renderer, code: str) -> None:
    """Mostly processes: the attempt may succeed, but nothing may be left afterwards."""
    failure(renderer, f"{code}\nraise RuntimeError('ESCAPED')", SETTINGS)


@with_the_inner_layer
def test_raw_calls_are_refused(renderer: Renderer) -> None:
    """Through ctypes, with arguments that are wrong anyway: only EPERM and ENOSYS show that the filter
    spoke.
    """
    numbers = {name: pair[0 if kernel.X86 else 1] for name, pair in CALLS.items()}
    code = f"""
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
passed = []
for name, number in {numbers}.items():
    if libc.syscall(number, 0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
        passed.append(name)
for option in (1, 4, 22, 23, 24, 36, 38, 47):
    if libc.prctl(option, 0, 0, 0, 0) != -1 or ctypes.get_errno() != errno.EPERM:
        passed.append(f"prctl {{option}}")
if libc.syscall({56 if kernel.X86 else 220}, 17, 0, 0, 0, 0) != -1:
    passed.append("clone of a process")
if libc.syscall({56 if kernel.X86 else 220}, 0x10010900 | 0x10000000, 0, 0, 0, 0) != -1:
    passed.append("clone with a namespace")
raise RuntimeError(f"passed: {{passed}}")
"""
    assert "passed: []" in failure(renderer, code, SETTINGS).detail


FAR = {
    "the metadata address": "socket.socket().connect(('169.254.169.254', 80))",
    "the web": "socket.socket().connect(('192.0.2.1', 80))",
    "a datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
}


@everywhere
@pytest.mark.parametrize("attempt", FAR.values(), ids=FAR)
def test_network_calls_are_refused_by_the_jail(renderer: Renderer, attempt: str) -> None:
    """The jail refuses it; a machine without a network would fail differently."""
    error = failure(renderer, f"import socket\n{attempt}", SETTINGS)
    assert "Operation not permitted" in error.detail or "Network is unreachable" in error.detail


def test_the_folder_of_another_job_is_unreachable() -> None:
    """On a machine without a private root."""
    renderer, neighbour = shared("container"), started("container")
    keep = "open('its-own', 'w').write('x'); import time; time.sleep(60)"
    running = threading.Thread(target=failure, args=(neighbour, keep, SETTINGS))
    running.start()
    pattern = f"{tempfile.gettempdir()}/llmi-code-*/job-*/its-own"
    try:
        wait_until(lambda: bool(glob.glob(pattern)))
        [path] = glob.glob(pattern)
        for attempt in (f"open({path!r}).read()", f"import glob; assert glob.glob({pattern!r})"):
            assert not _escapes(renderer, attempt)
    finally:
        neighbour.close()
        running.join()


@everywhere
def test_no_environment_and_no_descriptors(renderer: Renderer) -> None:
    """Only the standard descriptors, on /dev/null, and the pipe of the frame are open."""
    code = """
import ctypes, os
environ = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), 'environ')
names = [] if not environ else [environ[0]] if environ[0] else []
def is_open(number):
    try:
        return bool(os.fstat(number))
    except OSError:
        return False
raise RuntimeError(f"{dict(os.environ)} {names} {sum(map(is_open, range(1000)))}")
"""
    assert "{} [] 4" in failure(renderer, code, SETTINGS).detail


STATE = {
    "files": ("open('left', 'w').write('x')", "open('left').read()"),
    "files elsewhere": (
        "import os\nfor top in ('/', '/tmp', '..', '/dev/shm', '/var/tmp'):\n"
        " try: open(f'{top}/left', 'w').write('x')\n except OSError: pass",
        "import os; assert [t for t in ('/', '/tmp', '..', '/dev/shm') if os.path.exists(f'{t}/left')]",
    ),
    "a cache of matplotlib's": (
        "import os\ntry: open(f'{matplotlib.get_configdir()}/matplotlibrc', 'w').write('x')\n"
        "except OSError: pass",
        "import os; assert os.path.exists(f'{matplotlib.get_configdir()}/matplotlibrc')",
    ),
    "its code and its error": (
        "",
        "import sys; frame, seen = sys._getframe(), []\n"
        "while frame: seen += frame.f_locals.values(); frame = frame.f_back\n"
        "held = [bytes(one) for one in seen if isinstance(one, bytes | bytearray | memoryview)]\n"
        "assert any(b''.join((b'LE', b'FT')) in one for one in held)",
    ),
    "a thread": (
        "import threading, time\ntry: threading.Thread(target=time.sleep, args=(60,), name='left').start()\n"
        "except RuntimeError: pass",
        "import threading; assert threading.active_count() > 1",
    ),
    "random numbers": (
        "import random; random.seed(5); np.random.seed(5)",
        "import random; r = random.random(); random.seed(5); assert r == random.random()",
    ),
    "patched modules": ("plt.plot = np.mean = None", "plt.plot([1]); assert plt.plot is None"),
    "a figure": ("plt.plot([1])", "assert plt.get_fignums()"),
    "names": (
        "import builtins; builtins.secret = plt.secret = 1",
        "import builtins; builtins.secret + plt.secret",
    ),
    "parameters": (
        "plt.rcParams['figure.figsize'] = (1, 1)",
        "assert list(plt.rcParams['figure.figsize']) == [1, 1]",
    ),
}


@everywhere
@pytest.mark.parametrize(("leave", "find"), STATE.values(), ids=STATE)
def test_nothing_is_left_for_the_next_job(renderer: Renderer, leave: str, find: str) -> None:
    try_to_leave = failure(renderer, f"{leave}\nraise RuntimeError('LEFT')", SETTINGS)
    assert "LEFT" in try_to_leave.detail
    assert "FOUND" not in failure(renderer, f"{find}\nraise RuntimeError('FOUND')", SETTINGS).detail


def test_there_are_many_attempts() -> None:
    assert len(REACH) + len(WITHIN) + len(STATE) >= 60
