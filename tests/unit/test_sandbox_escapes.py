"""What hostile code tries, on three kinds of machine; after each attempt an ordinary chart still renders."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_worlds import CHART, SECRET, SECRET_NAME, WORLDS, failure, shared

from workers.errors import Cause
from workers.sandbox import kernel
from workers.sandbox.client import Renderer
from workers.settings import CodeSettings

SETTINGS = CodeSettings(cpu_s=5, wall_s=20, memory_mb=512, output_mb=4)
LISTENER = socket.create_server(("127.0.0.1", 0))  # so that a connection would succeed without the jail
PORT = LISTENER.getsockname()[1]


@pytest.fixture(scope="module", params=list(WORLDS))
def renderer(request: pytest.FixtureRequest) -> Renderer:
    return shared(request.param)


@pytest.fixture(autouse=True)
def _ordinary_chart_afterwards(renderer: Renderer) -> Iterator[None]:
    yield
    assert len(renderer.render(CHART, SETTINGS).images) == 1


# Each succeeds silently when the jail has a hole, and raises where it holds.
REFUSED = {
    "read shadow": "open('/etc/shadow').read()",
    "read passwd": "open('/etc/passwd').read()",
    "list root": "import os; os.listdir('/')",
    "the worker's environment": f"open('/proc/{os.getpid()}/environ').read()",
    "the zygote's environment": "import os; open(f'/proc/{os.getppid()}/environ').read()",
    "own environment file": "open('/proc/self/environ').read()",
    "environment variables": f"import os; os.environ[{SECRET_NAME!r}]",
    "the project's files": f"open({str(Path(__file__).parents[2] / 'pyproject.toml')!r}).read()",
    "write to /tmp": "open('/tmp/llmi-escape', 'w')",
    "write beside its folder": "open('../llmi-escape', 'w')",
    "write among the libraries": "open(np.__file__, 'a')",
    "truncate a library": "import os; os.truncate(np.__file__, 0)",
    "remove a library": "import os; os.remove(np.__file__)",
    "change a mode": "import os; os.chmod(np.__file__, 0o777)",
    "tcp": f"import socket; socket.create_connection(('127.0.0.1', {PORT}), 1)",
    "udp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "unix socket": "import socket; socket.socket(socket.AF_UNIX)",
    "socket pair": "import socket; socket.socketpair()",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "dns": "import socket; socket.getaddrinfo('example.org', 80)",
    "url of a file": "import urllib.request; urllib.request.urlopen('file:///etc/hostname')",
    "subprocess": "import subprocess; subprocess.run(['/bin/true'])",
    "os.system": "import os; assert os.system('true') == 0",
    "posix_spawn": "import os; os.posix_spawn('/bin/true', ['true'], {})",
    "exec": "import os, sys; os.execv(sys.executable, ['python'])",
    "fork": "import os; os.fork() or os._exit(0)",
    "forkpty": "import os; os.forkpty()[0] or os._exit(0)",
    "multiprocessing": "import multiprocessing as m; m.get_context('fork').Process(target=print).start()",
    "signal the zygote": "import os; os.kill(os.getppid(), 0)",
    "signal everyone": "import os; os.kill(-1, 0)",
    "signal a group": "import os; os.killpg(os.getpgid(os.getppid()), 0)",
    "kill itself": "import os; os.kill(os.getpid(), 9)",
    "kill its thread": "import signal, threading; signal.pthread_kill(threading.get_ident(), 9)",
    "kill by timer": "import signal; signal.setitimer(signal.ITIMER_REAL, 1)",
    "kill by descriptor": "import fcntl; fcntl.fcntl(0, 10, 9)",
    "raise limits": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))",
    "become root": "import os; os.setuid(0)",
    "symbolic link": "import os; os.symlink('/etc/shadow', 'chart.png')",
    "hard link": "import os; open('a', 'w'); os.link('a', 'b')",
    "named pipe": "import os; os.mkfifo('pipe')",
    "device": "import os; os.mknod('device')",
    "shared memory": "from multiprocessing import shared_memory as s; s.SharedMemory('x', True, 10)",
    "niceness": "import os; os.nice(1)",
    "chroot": "import os; os.chroot('.')",
}


@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED)
def test_refused(renderer: Renderer, code: str) -> None:
    error = failure(renderer, f"{code}\nraise RuntimeError('ESCAPED')", SETTINGS)
    assert error.cause is Cause.CODE_RAISED
    assert "ESCAPED" not in error.detail
    assert "ended without a result" not in error.detail
    assert SECRET not in error.detail


CALLS = {  # x86_64, aarch64
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "mount": (165, 40), "unshare": (272, 97),
    "setns": (308, 268), "bpf": (321, 280), "io_uring_setup": (425, 425), "keyctl": (250, 219),
    "add_key": (248, 217), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "memfd_create": (319, 279), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "execveat": (322, 281),
    "open_by_handle_at": (304, 265), "socket": (41, 198), "clone3": (435, 435), "openat2": (437, 437),
    "shmget": (29, 194), "msgget": (68, 186), "mq_open": (240, 180), "timer_create": (222, 107),
    "rt_sigqueueinfo": (129, 138), "personality": (135, 92), "seccomp": (317, 277), "setsid": (112, 157),
    "sched_setaffinity": (203, 122), "init_module": (175, 105), "kexec_load": (246, 104),
    "reboot": (169, 142), "inotify_init1": (294, 26), "fanotify_init": (300, 262),
    "landlock_create_ruleset": (444, 444), "name_to_handle_at": (303, 264),
}  # fmt: skip


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


def test_no_environment_and_no_descriptors(renderer: Renderer) -> None:
    """Nothing is inherited but the three standard descriptors, on /dev/null, and the frame's own pipe."""
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


@pytest.mark.parametrize(("leave", "find"), STATE.values(), ids=STATE)
def test_nothing_is_left_for_the_next_job(renderer: Renderer, leave: str, find: str) -> None:
    try_to_leave = failure(renderer, f"{leave}\nraise RuntimeError('LEFT')", SETTINGS)
    assert "LEFT" in try_to_leave.detail
    assert "FOUND" not in failure(renderer, f"{find}\nraise RuntimeError('FOUND')", SETTINGS).detail
