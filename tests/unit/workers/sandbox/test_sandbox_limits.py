"""Code over its limits fails with CODE_LIMIT, leaves no process, and the next chart renders."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from sandbox_worlds import CHART, failure, shared, started, zygote
from waiting import wait_until

from workers.errors import Cause, InfrastructureFault, ModelFault
from workers.sandbox import failures
from workers.sandbox.renderer import Renderer
from workers.settings import CodeSettings

SETTINGS = CodeSettings(
    cpu_s=5, wall_s=20, memory_mb=384, output_mb=2, max_figures=3, max_pixels=1_000_000, require=()
)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return shared("here")


@pytest.fixture(autouse=True)
def _ordinary_chart_afterwards(renderer: Renderer) -> Iterator[None]:
    yield
    _is_ready(renderer)


def _is_ready(renderer: Renderer) -> None:
    assert zygote(renderer).children(recursive=True) == []
    assert len(renderer.render(CHART, SETTINGS).images) == 1


SLEEP = "import time; time.sleep(30)"
TOO_MUCH = {
    "memory in one piece": "np.ones(1 << 30)",
    "memory in many pieces": "x = []\nwhile True: x.append(bytes(1 << 20))",
    "memory by doubling": "x = 'x'\nwhile True: x += x",
    "a figure of 100,000 x 100,000": "plt.figure(figsize=(1000, 1000), dpi=100).text(0, 0, 'x')",
    "saving one of 100,000 x 100,000": "plt.plot([1]); plt.savefig('x.png', dpi=20_000); np.ones(1 << 30)",
    "a huge resolution": "plt.figure(dpi=20_000).text(0, 0, 'x')",
    "text far outside": "plt.plot([1]); plt.gcf().text(40, 40, 'x')",
    "a noisy image": (
        "plt.figure(figsize=(9, 9)).add_axes((0, 0, 1, 1)).imshow(np.random.rand(900, 900, 3))"
    ),
    "a frame that claims too much": (
        "import os, struct, time\nfor n in range(3, 32):\n"
        " try: os.write(n, struct.pack('<I', 1 << 31))\n except OSError: pass\ntime.sleep(30)"
    ),
}


@pytest.mark.parametrize("code", TOO_MUCH.values(), ids=TOO_MUCH)
def test_too_much_is_refused(renderer: Renderer, code: str) -> None:
    error = failure(renderer, code, SETTINGS)
    assert error.cause is Cause.CODE_LIMIT, error


def test_text_far_outside_the_figure_is_the_models_fault(renderer: Renderer) -> None:
    """Beyond the size of a font that can be drawn, in a picture of any size."""
    error = failure(renderer, "plt.plot([1]); plt.gcf().text(1e6, 1e6, 'x')", SETTINGS)
    assert error.cause is Cause.CODE_RAISED, error


HIDDEN = "import os\nfor n in range(17): os.mkdir('x' * 250); os.chdir('x' * 250)\n"  # beyond any path
DISK = {
    "one large file": "open('flood', 'wb').write(bytes(64 << 20))",
    "many files": f"for n in range(100): open(str(n), 'wb').write(bytes(1 << 20))\n{SLEEP}",
    "many empty files": "for n in range(400_000): open(str(n), 'w').close()",
    "deep folders": f"import os\nfor n in range(2000): os.mkdir('d'); os.chdir('d')\n{SLEEP}",
    "closed folders": (
        f"import os\nfor n in range(2000): os.makedirs(f'{{n}}/a'); os.mkdir(f'{{n}}/a/b', 0)\n{SLEEP}"
    ),
    "files beyond any path": f"{HIDDEN}for n in range(75): open(str(n), 'wb').write(bytes(1 << 20))\n{SLEEP}",
    "empty files beyond any path": f"{HIDDEN}for n in range(400_000): open(str(n), 'w').close()",
    "files without a name": (
        "import os, tempfile\nfor n in range(400_000): os.close(os.open('.', os.O_TMPFILE | os.O_RDWR))\n"
        "open('large', 'wb').write(bytes(64 << 20))"
    ),
    "files of holes": f"for n in range(100): open(str(n), 'wb').truncate(2 << 20)\n{SLEEP}",
    "files that only a mapping keeps": (
        "import ctypes, os\nlibc = ctypes.CDLL(None)\nfor n in range(400_000):\n"
        " with open('x', 'w+b') as file:\n"
        "  file.write(bytes(1 << 20)); file.flush(); os.unlink('x')\n"
        "  libc.mmap(None, 4096, 1, 2, file.fileno(), 0)"
    ),
}


@pytest.mark.parametrize("world", ["here", "container", "bubblewrap without mounts"])
@pytest.mark.parametrize("code", DISK.values(), ids=DISK)
def test_the_folder_is_bounded(world: str, code: str) -> None:
    """The limit is that of the tmpfs; where nothing can be mounted, the size is checked."""
    renderer = shared(world)
    error = failure(renderer, code, SETTINGS)
    assert error.cause is Cause.CODE_LIMIT, error
    _is_ready(renderer)


ENDLESS = {
    "loop": "while True: pass",
    "loop that ignores signals": (
        "import signal\nfor n in (signal.SIGXCPU, signal.SIGTERM): signal.signal(n, signal.SIG_IGN)\n"
        "while True: pass"
    ),
    "regular expression": "import re; re.match('(a*)*b', 'a' * 40)",
    "big integers": "9**9**9",
    "numpy": "a = np.ones(1_000_000); np.correlate(a, a, 'full')",
}  # fmt: skip


@pytest.mark.parametrize("code", ENDLESS.values(), ids=ENDLESS)
def test_cpu_is_limited(renderer: Renderer, code: str) -> None:
    error = failure(renderer, code, SETTINGS.model_copy(update={"cpu_s": 0.5}))
    assert error.cause is Cause.CODE_LIMIT
    assert "CPU" in error.detail


def test_wall_time_is_limited(renderer: Renderer) -> None:
    error = failure(renderer, "import time; time.sleep(60)", SETTINGS.model_copy(update={"wall_s": 2.0}))
    assert error.cause is Cause.CODE_LIMIT
    assert "longer than 2 s" in error.detail


@pytest.fixture
def crowded(renderer: Renderer) -> Iterator[None]:
    """The zygote and its children share one CPU with four busy processes."""
    forks = zygote(renderer)
    before = forks.cpu_affinity()
    forks.cpu_affinity(before[:1])
    # Sessions of their own, because the kernel may share a CPU out by session.
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(4)
    ]
    for one in busy:
        psutil.Process(one.pid).cpu_affinity(before[:1])
    yield
    for one in busy:
        one.kill()
        one.wait()
    forks.cpu_affinity(before)


LABOUR = "import time\nwhile time.process_time() < 1: pass\nplt.plot([1])"


def test_waiting_for_a_cpu_does_not_count_against_the_run_limit(renderer: Renderer, crowded: None) -> None:
    """More wall-clock time than its limit, because of other processes."""
    assert renderer.render(LABOUR, SETTINGS.model_copy(update={"wall_s": 2.0})).images


LOOPS = {
    "one thread": "while True: pass",
    "many threads": (
        "import threading; threading.stack_size(1 << 16)\ndef spin():\n while True: pass\n"
        "for n in range(9): threading.Thread(target=spin, daemon=True).start()\nspin()"
    ),
    "naps": "import time\nwhile True: time.sleep(1e-6)",
    "yields": "import os\nwhile True: os.sched_yield()",
}


@pytest.mark.parametrize("code", LOOPS.values(), ids=LOOPS)
def test_a_busy_machine_excuses_no_loop(renderer: Renderer, crowded: None, code: str) -> None:
    error = failure(renderer, code, SETTINGS.model_copy(update={"wall_s": 1.5}))
    assert error.cause is Cause.CODE_LIMIT, error


def test_parallel_loops_each_reach_their_limit() -> None:
    """Three code workers on one core: each loop gets its CPU time, only later."""
    loops = [started("here") for _ in range(3)]
    core = zygote(loops[0]).cpu_affinity()[:1]
    for one in loops:
        zygote(one).cpu_affinity(core)
    with ThreadPoolExecutor(3) as pool:
        limits = SETTINGS.model_copy(update={"cpu_s": 2, "wall_s": 3.0})
        errors = list(pool.map(lambda one: failure(one, "while True: pass", limits), loops))
    for one in loops:
        one.close()
    assert [error.cause for error in errors] == [Cause.CODE_LIMIT] * 3, errors


def test_a_machine_too_busy_for_the_code_is_not_the_models_fault(
    renderer: Renderer, crowded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "BUSY_FACTOR", 1.0)
    error = failure(renderer, LABOUR, SETTINGS.model_copy(update={"wall_s": 1.5}))
    assert isinstance(error, InfrastructureFault)
    assert error.cause is Cause.SANDBOX
    assert "of 1.5 s for a CPU" in error.detail


def test_sleeping_counts_against_the_run_limit_on_a_busy_machine(renderer: Renderer, crowded: None) -> None:
    error = failure(renderer, "import time; time.sleep(60)", SETTINGS.model_copy(update={"wall_s": 3.0}))
    assert error.cause is Cause.CODE_LIMIT


def test_code_that_used_its_cpu_is_at_fault_for_any_deadline(renderer: Renderer) -> None:
    """Code that did not wait for a CPU is not excused by the deadline."""
    with pytest.raises(ModelFault) as caught:
        renderer.render("while True: pass", SETTINGS.model_copy(update={"cpu_s": 0.1}), wall_s=0.9)
    assert caught.value.cause is Cause.CODE_LIMIT


def test_a_close_deadline_is_not_the_models_fault(renderer: Renderer) -> None:
    with pytest.raises(InfrastructureFault) as caught:
        renderer.render("import time; time.sleep(60)", SETTINGS, wall_s=0.3)
    assert caught.value.cause is Cause.TIMEOUT


def test_threads_are_bounded_and_die_with_the_job(renderer: Renderer) -> None:
    code = """
import threading, time
count = 0
try:
    while count < 1000:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        count += 1
except RuntimeError:
    raise RuntimeError(f"{count} threads")
"""
    detail = failure(renderer, code, SETTINGS).detail
    assert 1 <= int(detail.split()[1]) < 100


@pytest.mark.parametrize("machine", ["here", "namespaces"])
def test_a_thread_bomb_leaves_other_jobs_their_threads(machine: str) -> None:
    """The kernel counts threads by user, so the jobs of two workers have two users."""
    thread = "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    small = "import threading, time; threading.stack_size(1 << 16)"  # so that memory is not what ends first
    after = "files = [open(str(n), 'w') for n in range(10)]; time.sleep(60)"
    bomb = f"{small}\ntry:\n while True: {thread}\nexcept RuntimeError: {after}"
    few = f"{small}\nfor _ in range(20): {thread}\nplt.plot([1])"
    neighbour = shared(machine)
    bombed = started(machine)
    running = threading.Thread(target=failure, args=(bombed, bomb, SETTINGS))
    running.start()
    try:
        wait_until(lambda: any(job.num_fds() > 10 for job in zygote(bombed).children()))
        assert neighbour.render(few, SETTINGS).images
    finally:
        bombed.close()
        running.join()


def test_open_files_are_bounded(renderer: Renderer) -> None:
    code = "x = []\nwhile True: x.append(open(str(len(x)), 'w'))"
    assert "Too many open files" in failure(renderer, code, SETTINGS).detail


def test_only_so_many_figures_are_kept(renderer: Renderer) -> None:
    code = "for n in range(5): plt.figure(figsize=(1 + n, 1)).text(0.5, 0.5, str(n))"
    drawing = renderer.render(code, SETTINGS)
    assert (len(drawing.images), drawing.drawn) == (3, 5)


def test_an_exception_cannot_flood_the_message(renderer: Renderer) -> None:
    assert len(failure(renderer, "raise ValueError('x' * 100_000_000)", SETTINGS).detail) < 3000
