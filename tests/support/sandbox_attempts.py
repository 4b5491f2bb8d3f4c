"""What hostile code tries, a few lines each. Every one succeeds silently where the jail has a hole, and
raises where it holds.

`REACH` is for what lies outside, and each of the jail's two layers must refuse it alone. `WITHIN` is for what
only the inner layer refuses (system calls, Landlock): inside the outer layer it does no harm, and ends with
the job.
"""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

SECRET_NAME, SECRET = "LLMI_TEST_SECRET", "do-not-leak-this"  # in the environment of every worker here
PROJECT = Path(__file__).parents[2]


def _listening(family: int, address: str | tuple[str, int]) -> socket.socket:
    listener = socket.socket(family)
    listener.bind(address)
    listener.listen()
    return listener


# So that a connection would succeed without the jail.
_FOLDER = tempfile.TemporaryDirectory()
UNIX, ABSTRACT = f"{_FOLDER.name}/socket", f"\0llmi-test-{os.getpid()}"
LISTENERS = [
    _listening(socket.AF_INET, ("127.0.0.1", 0)),
    _listening(socket.AF_UNIX, UNIX),
    _listening(socket.AF_UNIX, ABSTRACT),
]
PORT = LISTENERS[0].getsockname()[1]
WORKER = os.getpid()

_FAKE = """
import os
for name in ('latex', 'pdflatex', 'xelatex', 'ffmpeg', 'convert', 'gs'):
    with open(os.open(name, os.O_CREAT | os.O_WRONLY, 0o755), 'w') as program:
        program.write('#!/bin/sh\\nexit 0\\n')
os.environ['PATH'] = os.getcwd() + ':/usr/bin:/bin'
"""
_VM = """
import ctypes, os
class Vec(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]
buffer = ctypes.create_string_buffer(8)
local, remote = Vec(ctypes.addressof(buffer), 8), Vec(id(np), 8)
libc = ctypes.CDLL(None)
"""

REACH = {
    # files
    "read shadow": "open('/etc/shadow').read()",
    "read passwd": "open('/etc/passwd').read()",
    "read a file's url": "import urllib.request; urllib.request.urlopen('file:///etc/hostname')",
    "read through numpy": "np.fromfile('/etc/passwd', dtype='u1')",
    "read through pandas": "pd.read_csv('/etc/passwd', sep=':')",
    "read as an image": "plt.imshow(plt.imread('/etc/shadow'))",
    "read by way of dots": "open('../../../../../../../etc/passwd').read()",
    "read a disk": "open('/dev/vda', 'rb').read(1)",
    "read the kernel's log": "open('/dev/kmsg').read(1)",
    "the home folder": f"open({str(Path.home() / '.bashrc')!r}).read()",
    "root's home folder": "open('/root/.profile').read()",
    "the project's files": f"open({str(PROJECT / 'pyproject.toml')!r}).read()",
    "the worker's code": f"open({str(PROJECT / 'workers' / 'tools' / 'code.py')!r}).read()",
    "the jail's own code": f"open({str(PROJECT / 'workers' / 'sandbox' / 'child.py')!r}).read()",
    "import the worker": "import workers.tools.code",
    "other jobs' folders": "import glob; assert glob.glob('/tmp/llmi-code-*/*') + glob.glob('../job-*/*')",
    "temporary files of others": f"import os; assert os.listdir({_FOLDER.name!r})",
    # keys, and others' memory
    "the first process's environment": "assert open('/proc/1/environ').read()",
    "the worker's environment": f"open('/proc/{WORKER}/environ').read()",
    "the zygote's environment": "import os; open(f'/proc/{os.getppid()}/environ').read()",
    "its own environment's file": "open('/proc/self/environ').read()",
    "environment variables": f"import os; os.environ[{SECRET_NAME!r}]",
    "the C library's environment": (
        "import ctypes; get = ctypes.CDLL(None).getenv; get.restype = ctypes.c_char_p\n"
        f"assert get({SECRET_NAME.encode()!r})"
    ),
    "the zygote's memory, as a file": "import os; open(f'/proc/{os.getppid()}/mem', 'rb')",
    "the worker's memory, as a file": f"open('/proc/{WORKER}/mem', 'rb')",
    "the worker's memory": (
        f"{_VM}\nread = libc.process_vm_readv({WORKER}, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)\n"
        "assert read > 0"
    ),
    "the zygote's memory": (
        f"{_VM}\nhow = (ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)\n"
        "read = libc.process_vm_readv(os.getppid(), *how)\n"
        "assert read > 0"
    ),
    "trace the zygote": "import ctypes, os; assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    "the worker's open files": f"import os; os.listdir('/proc/{WORKER}/fd')",
    # writing
    "write to /tmp": "open('/tmp/llmi-escape', 'w')",
    "write to shared memory": "open('/dev/shm/llmi-escape', 'w')",
    "write into the home folder": "import os; open(os.path.expanduser('~/.bashrc'), 'a')",
    "write into root's folder": "import os; open('/root/.profile', 'a')",
    "write at the root": "open('/llmi-escape', 'w')",
    "write beside its folder": "open('../llmi-escape', 'w')",
    "save beside its folder": "plt.plot([1]); plt.gcf().canvas.print_png('../llmi-escape.png')",
    "write among the libraries": "open(np.__file__, 'a')",
    "add a library": "import os; open(os.path.dirname(np.__file__) + '/escape.py', 'w')",
    "truncate a library": "import os; os.truncate(np.__file__, 0)",
    "remove a library": "import os; os.remove(np.__file__)",
    "change a mode": "import os; os.chmod(np.__file__, 0o777)",
    # network
    "loopback": f"import socket; socket.create_connection(('127.0.0.1', {PORT}), 1)",
    "a port of Redis": (
        f"import socket\ns = socket.create_connection(('localhost', {PORT}), 1)\n"
        "s.sendall(b'*1\\r\\n$8\\r\\nFLUSHALL\\r\\n')"
    ),
    "loopback of IPv6": f"import socket; socket.create_connection(('::ffff:127.0.0.1', {PORT}), 1)",
    "the metadata address": "import socket; socket.create_connection(('169.254.169.254', 80), 1)",
    "the web": "import urllib.request; urllib.request.urlopen('http://192.0.2.1/', timeout=1)",
    "send a datagram": (
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))"
    ),
    "dns": "import socket; socket.getaddrinfo('example.org', 80)",
    "a unix socket": f"import socket; socket.socket(socket.AF_UNIX).connect({UNIX!r})",
    "an abstract socket": f"import socket; socket.socket(socket.AF_UNIX).connect({ABSTRACT!r})",
    # programs and processes
    "subprocess": "import subprocess; subprocess.run(['/bin/true'])",
    "os.system": "import os; assert os.system('true') == 0",
    "posix_spawn": "import os; os.posix_spawn('/bin/true', ['true'], {})",
    "a pickle that runs a program": "import pickle; assert pickle.loads(b'cos\\nsystem\\n(Vtrue\\ntR.') == 0",
    "an array that runs a program": (
        "open('a.npy', 'wb').write(b'cos\\nsystem\\n(Vtrue\\ntR.')\n"
        "assert np.load('a.npy', allow_pickle=True) == 0"
    ),
    "usetex": f"{_FAKE}plt.rcParams['text.usetex'] = True; plt.title('x'); plt.savefig('x.png')",
    "the pgf backend": f"{_FAKE}plt.plot([1]); plt.savefig('x.pdf', backend='pgf')",
    "ghostscript": f"{_FAKE}from matplotlib.backends import backend_ps as b; b.gs_distill('x.ps')",
    "a film by ffmpeg": (
        f"{_FAKE}from matplotlib.animation import FFMpegWriter as W\n"
        "w = W(); w.setup(plt.figure(), 'x.mp4'); w.finish()"
    ),
    "a film by ImageMagick": (
        f"{_FAKE}from matplotlib.animation import ImageMagickWriter as W\n"
        "w = W(); w.setup(plt.figure(), 'x.gif'); w.finish()"
    ),
    "signal the worker": f"import os; os.kill({WORKER}, 0)",
    "become root": "import os; os.setuid(0); open('/etc/shadow').read()",
    "mount": (
        "import ctypes, os; os.mkdir('m')\n"
        "assert ctypes.CDLL(None).mount(b'tmpfs', b'm', b'tmpfs', 0, None) == 0"
    ),
    "chroot": "import os; os.chroot('.')",
    "a device": "import os; os.mknod('device', 0o60600, os.makedev(254, 0))",
    "the host's name": "import socket; socket.sethostname('escaped')",
    "the clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
}

WITHIN = {
    "list the root": "import os; os.listdir('/')",
    "udp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "raw socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
    "packet socket": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "unix socket": "import socket; socket.socket(socket.AF_UNIX)",
    "socket pair": "import socket; socket.socketpair()",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "vsock": "import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
    "kernel crypto": "import socket; socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)",
    "a server of its own": (
        "import http.server as h; h.HTTPServer(('127.0.0.1', 0), h.BaseHTTPRequestHandler)"
    ),
    "the webagg backend": (
        "from matplotlib.backends.backend_webagg import WebAggApplication as W; W.initialize()"
    ),
    "exec": "import os, sys; os.execv(sys.executable, ['python'])",
    "fork": "import os; os.fork() or os._exit(0)",
    "fork bomb": "import os\nwhile True: os.fork()",
    "a daemon": "import os, time\nif os.fork() == 0:\n os.setsid()\n os.fork()\n time.sleep(60)",
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
    "symbolic link as output": "import os; os.symlink('/etc/shadow', 'chart.png')",
    "hard link": "import os; open('a', 'w'); os.link('a', 'b')",
    "pipe as output": "import os; os.mkfifo('chart.png')",
    "shared memory": "from multiprocessing import shared_memory as s; s.SharedMemory('x', True, 10)",
    "niceness": "import os; os.nice(1)",
    "another session": "import os; os.setsid()",
}

# Raw system calls: x86_64, aarch64.
CALLS = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "mount": (165, 40),
    "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "execve": (59, 221), "execveat": (322, 281),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "socket": (41, 198),
    "connect": (42, 203), "clone3": (435, 435), "openat2": (437, 437), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "mount_setattr": (442, 442), "shmget": (29, 194),
    "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "timer_create": (222, 107),
    "rt_sigqueueinfo": (129, 138), "kill": (62, 129), "tkill": (200, 130), "personality": (135, 92),
    "seccomp": (317, 277), "setsid": (112, 157), "setuid": (105, 146), "setresuid": (117, 147),
    "setgroups": (116, 159), "capset": (126, 91), "sched_setaffinity": (203, 122),
    "init_module": (175, 105), "kexec_load": (246, 104), "reboot": (169, 142), "swapon": (167, 224),
    "sethostname": (170, 161), "inotify_init1": (294, 26), "fanotify_init": (300, 262),
    "landlock_create_ruleset": (444, 444), "vmsplice": (278, 75), "process_madvise": (440, 440),
}  # fmt: skip
