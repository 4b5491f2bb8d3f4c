"""Code that tries to make its failure an infrastructure failure, or that of the next job, a few lines each.

It ends or stops its process, leaves something behind, uses up a resource, or tampers with the processes
around it.
"""

from __future__ import annotations

_RAW = "import ctypes, os; libc = ctypes.CDLL(None)\n"
_FIND = (  # the pipe of its own result
    "import os, stat, time\n"
    "def is_pipe(n):\n"
    " try: return stat.S_ISFIFO(os.fstat(n).st_mode)\n"
    " except OSError: return False\n"
    "pipes = [n for n in range(3, 32) if is_pipe(n)]\n"
)
_MOVED = (
    "import os\nfor p in (os.getppid(), os.getpid(), 1):\n"
    " for i in range(1, 30):\n"
    "  os.makedirs(f'd/moved-{i}-{p}/a', exist_ok=True); open(f'd/moved-{i}-{p}/b', 'w').close()\n"
)

SIGNALS = {
    "kills itself": "import os; os.kill(os.getpid(), 9)",
    "kills itself with SIGXCPU": "import signal; signal.raise_signal(signal.SIGXCPU)",
    "stops itself": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "stops its group": "import os, signal; os.killpg(0, signal.SIGSTOP)",
    "kills everybody it sees": "import os; os.kill(-1, 9)",
    "kills the zygote": "import os; os.kill(os.getppid(), 9)",
    "interrupts the zygote": "import os\nfor n in (2, 3, 15, 19): os.kill(os.getppid(), n)",
    "kills itself by pidfd": f"{_RAW}fd = libc.syscall(434, os.getpid(), 0); libc.syscall(424, fd, 9, 0, 0)",
    "queues itself a signal": f"{_RAW}libc.syscall(129, os.getpid(), 9, (ctypes.c_int * 32)(9, 0, -1))",
    "an alarm": f"{_RAW}libc.alarm(1); import time; time.sleep(5)",
    "asks to be traced": f"{_RAW}libc.ptrace(0, 0, 0, 0); os.kill(os.getpid(), 5)",
    "asks to be traced, and aborts": f"{_RAW}libc.ptrace(0, 0, 0, 0); os.abort()",
    "kills itself by a limit": "import resource as r; r.setrlimit(r.RLIMIT_CPU, (1, 1))\nwhile True: pass",
    "kills itself by a large file": (
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\nopen('x', 'wb').write(bytes(64 << 20))"
    ),
    "outlives its parent's signal": f"{_RAW}libc.prctl(1, 0, 0, 0, 0); os._exit(0)",
    "crashes": "import ctypes; ctypes.memset(8, 0, 8)",
    "an illegal instruction": (
        "import ctypes, mmap\npage = mmap.mmap(-1, 4096, prot=7); page.write(b'\\x0f\\x0b')\n"
        "ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()"
    ),
    "no end of the stack": "import sys; sys.setrecursionlimit(1 << 30)\ndef f(): f()\nf()",
    "no end of C's stack": "x = []\nfor n in range(1 << 20): x = [x]\nrepr(x)\nimport copy; copy.deepcopy(x)",
    "a deep expression": "eval('(' * 100_000 + ')' * 100_000)",
    "a fatal error of Python's": "import ctypes; ctypes.pythonapi.Py_FatalError(b'x')",
    "a thread that ends all": "import os, threading; threading.Thread(target=os._exit, args=(0,)).start()",
}
LEFT = {
    "predictable names": _MOVED,
    "predictable names at the top": _MOVED.replace("d/", ""),
    "names as long as can be": "import os\nfor n in range(20): os.mkdir(f'{n:0255}'); os.chdir(f'{n:0255}')",
    "names of any bytes": "import os\nfor n in (b'\\xff', b'\\n', b'*', b'-rf', b'\\x1b[2J'): os.mkdir(n)",
    "folders nobody may enter": "import os\nfor n in 'abc': os.makedirs(f'{n}/a/b'); os.mkdir(f'{n}/c', 0)",
    "folders nobody may list": "import os; os.mkdir('x', 0o300); os.mkdir('x/y', 0o300); open('x/y/z', 'w')",
    "a folder that is gone": "import os; os.rmdir(os.getcwd())",
    "a folder that is elsewhere": "import os; os.rename(os.getcwd(), os.getcwd() + 'x')",
    "a folder under another's name": "import os; os.mkdir('../job'); os.mkdir('../job-aaaaaaaa')",
    "its folder closed": "import os; os.chmod('.', 0)",
    "files that cannot be removed": (
        "import fcntl, struct; fcntl.ioctl(open('x', 'w'), 0x40086602, struct.pack('l', 0x10))"
    ),
    "pipes, sockets and links": (
        "import os, socket\n"
        "for make in (lambda: os.mkfifo('p'), lambda: os.symlink('/', 's'), lambda: os.link('p', 'l'),\n"
        " lambda: socket.socket(socket.AF_UNIX).bind('u'), lambda: os.symlink('.', 'a/' + 'b')):\n"
        " try: make()\n except OSError: pass"
    ),
    "files being written": "import threading\nx = [open(str(n), 'wb') for n in range(20)]",
    "a process": "import os, time\nif os.fork() == 0:\n os.setsid(); time.sleep(60)",
    "a process that holds its result": "import os, time\nif os.fork() == 0: time.sleep(60)\nos._exit(0)",
    "a sibling": f"{_RAW}\nif libc.syscall(56, 0x8011, 0, 0, 0, 0) == 0: __import__('time').sleep(60)",
    "shared memory": f"{_RAW}assert libc.shmget(0, 1 << 28, 0o1600) < 0, 'LEFT'",
    "queues of messages": f"{_RAW}assert libc.msgget(0, 0o1600) < 0, 'LEFT'",
    "semaphores": f"{_RAW}assert libc.semget(0, 9, 0o1600) < 0, 'LEFT'",
    "another session": "import os; os.setsid(); os.setpgid(0, 0)",
}
TAKEN = {
    "threads that spin": (
        "import threading; threading.stack_size(1 << 16)\ndef spin():\n while True: pass\n"
        "for n in range(20): threading.Thread(target=spin).start()"
    ),
    "the last place": (
        "import os\nfor last in (lambda: os.nice(19),\n"
        " lambda: os.sched_setscheduler(0, 5, os.sched_param(0)),\n"
        " lambda: os.sched_setaffinity(0, {0})):\n try: last()\n except OSError: pass\nwhile True: pass"
    ),
    "memory": "x = []\nwhile True: x.append(bytearray(b'x') * (1 << 22))",
    "shared pages": (
        "import mmap\nx = []\nwhile True: x.append(mmap.mmap(-1, 1 << 24)); x[-1].write(bytes(1 << 24))"
    ),
    "memory without an address": (
        "import os\nx = []\nwhile True: x.append(os.memfd_create('x')); os.write(x[-1], bytes(1 << 20))"
    ),
    "pipes full": (
        "import os\nx = []\nwhile True:\n x.append(os.pipe()); os.set_blocking(x[-1][1], False)\n"
        " os.write(x[-1][1], bytes(1 << 20))"
    ),
    "time asleep": "import time; time.sleep(60)",
    "time asleep in a lock": "import threading; x = threading.Lock(); x.acquire(); x.acquire()",
    "questions without end": (
        "while True:\n try: open('x', 'w').close(); __import__('os').unlink('x')\n except OSError: pass"
    ),
    "a mount of its own": (
        f"{_RAW}assert libc.unshare(0x10020000) != 0 or libc.mount(b't', b'.', b'tmpfs', 0, 0) != 0, 'LEFT'"
    ),
}
TAMPERED = {
    "its result closed": f"{_FIND}[os.close(n) for n in pipes]; time.sleep(60)",
    "its result twice": f"{_FIND}[os.dup(n) for n in pipes * 5]; os._exit(0)",
    "its result another's": f"{_FIND}[os.dup2(0, n) for n in pipes]",
    "its result by the byte": (
        f"{_FIND}[os.write(n, b'\\x00\\x10\\x00\\x00') for n in pipes]\n"
        "while True: time.sleep(0.01); [os.write(n, b'x') for n in pipes]"
    ),
    "a jail that failed": f"{_FIND}[os.write(n, b'S' * 9000) for n in pipes]; os._exit(0)",
    "no end of the process": "import os; os._exit = lambda *_: None; raise ValueError",
    "no words": "from workers.sandbox import protocol; protocol.write_all = lambda *_: None",
    "the zygote's own work": (
        "import os; os._exit = lambda *_: None\n"
        "from workers.sandbox import protocol; protocol.head = protocol.write_all = lambda *_: b''"
    ),
    "an error without a name": (
        "class Type(type):\n @property\n def __name__(cls): raise OSError(28, 'x')\n"
        "class Error(Exception, metaclass=Type): pass\nraise Error"
    ),
    "an error that never ends": (
        "class Error(Exception):\n def __str__(self):\n  while True: pass\nraise Error"
    ),
    "an error of another class": (
        "class Error(Exception):\n __class__ = property(lambda self: 1 / 0)\nraise Error"
    ),
    "an error in halves": "raise ValueError('\\ud800' * 100)",
    "a syntax error of its own": "raise SyntaxError('x', ('<code>', 'x', 'y', 'z', 1, 2))",
    "an end of its own": "class Code:\n def __eq__(self, other): 1 / 0\nraise SystemExit(Code())",
    "an interruption": "raise KeyboardInterrupt",
    "a figure that never draws": (
        "from matplotlib.lines import Line2D\n"
        "class Line(Line2D):\n def draw(self, renderer): raise SystemExit\nplt.gca().add_line(Line([0], [1]))"
    ),
}
ATTEMPTS = SIGNALS | LEFT | TAKEN | TAMPERED
