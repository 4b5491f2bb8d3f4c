"""Image decoders: their limits, decoders and zygotes that die, and that the next image works."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hostile_images import coded, jpeg_of_scans
from PIL import Image
from sandbox_worlds import forking, world
from waiting import wait_until

from workers.errors import Cause, InfrastructureFault
from workers.sandbox import decoders, protocol
from workers.sandbox.decoders import LIMITS, DecodeOptions, Decoders

ORDER = DecodeOptions(max_pixels=50_000_000, min_side=8, max_side=2048)
PICTURE = coded(Image.new("RGB", (40, 30), "teal"))
LABOUR = jpeg_of_scans(3000, 20_000)
SECRET = "do-not-leak-this"


@pytest.fixture(scope="module", params=["here", "container", "outer"])
def machine(request: pytest.FixtureRequest) -> Iterator[Decoders]:
    """Decoders on every kind of machine, with low limits."""
    with world(request.param):
        made = Decoders(replace(LIMITS, cpu_s=1.0, wall_s=60.0, memory_mb=96))
        made.warm()
    yield made
    made.close()


@pytest.fixture
def limited() -> Iterator[Callable[..., Decoders]]:
    """`limited(cpu_s=1.0)`: decoders with other limits."""
    made: list[Decoders] = []

    def build(**limits: float) -> Decoders:
        made.append(Decoders(replace(LIMITS, **limits)))
        return made[-1]

    yield build
    for one in made:
        one.close()


def fault(one: Decoders, data: bytes) -> InfrastructureFault:
    with pytest.raises(InfrastructureFault) as caught:
        one.decode(data, ORDER)
    return caught.value


def zygote(one: Decoders) -> psutil.Process:
    """The zygote of idle decoders that have used only one."""
    [idle] = one._idle
    return forking(idle)


def at_work(one: psutil.Process) -> psutil.Process:
    """The jailed process that decodes an image of a zygote."""

    def jailed() -> psutil.Process | None:
        below = one.children(recursive=True)  # seccomp is the last layer that is put on
        return next((child for child in below if "Seccomp:\t2" in _proc_file(child, "status")), None)

    found = wait_until(jailed, every_s=0.005)
    assert found is not None
    entered_s = found.cpu_times().user
    wait_until(lambda: found.cpu_times().user > entered_s + 0.02, every_s=0.005)  # it decodes
    return found


def _proc_file(process: psutil.Process, name: str) -> str:
    """A file of a process in /proc; empty if the process is gone."""
    try:
        return Path(f"/proc/{process.pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_an_image_is_decoded_to_its_pixels(machine: Decoders) -> None:
    image, lossy = machine.decode(PICTURE, ORDER)
    assert (image.mode, image.size, lossy) == ("RGB", (40, 30), False)
    assert image.getpixel((5, 5)) == (0, 128, 128)


def test_too_much_memory_is_refused_and_the_next_image_works(machine: Decoders) -> None:
    large = coded(Image.new("RGB", (6000, 6000)), "PNG", compress_level=1)
    error = fault(machine, large)
    assert (error.cause, error.detail) == (
        Cause.BAD_ANSWER,
        "decoding it takes more than 96 MB of memory",
    )
    assert machine.decode(PICTURE, ORDER)


def test_too_much_work_is_refused_and_the_next_image_works(machine: Decoders) -> None:
    error = fault(machine, LABOUR)
    assert (error.cause, error.detail) == (Cause.BAD_ANSWER, "decoding it took more than 1 s of CPU")
    assert machine.decode(PICTURE, ORDER)


def test_a_decoder_has_a_time_limit_and_the_next_image_works(limited: Callable[..., Decoders]) -> None:
    short = limited(wall_s=1.5)
    error = fault(short, LABOUR)
    assert (error.cause, error.detail) == (Cause.BAD_ANSWER, "decoding it took longer than 1.5 s")
    assert short.decode(PICTURE, ORDER)


def test_a_decoder_is_in_the_jail_and_has_no_key(
    limited: Callable[..., Decoders], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    one = limited(cpu_s=30.0, wall_s=60.0)
    one.warm()
    parent = zygote(one)
    assert SECRET not in str(parent.environ())
    with ThreadPoolExecutor() as pool:
        result = pool.submit(fault, one, LABOUR)
        child = at_work(parent)
        status, limits = _proc_file(child, "status"), _proc_file(child, "limits")
        child.kill()
        result.result()
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    assert re.search(r"^Max cpu time +30 ", limits, re.MULTILINE)
    assert re.search(r"^Max file size +0 ", limits, re.MULTILINE)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_killed_decoder_is_a_bad_answer_and_the_next_image_works(
    limited: Callable[..., Decoders], number: signal.Signals
) -> None:
    one = limited(cpu_s=30.0, wall_s=60.0)
    one.warm()
    parent = zygote(one)
    with ThreadPoolExecutor() as pool:
        result = pool.submit(fault, one, LABOUR)
        at_work(parent).send_signal(number)
        error = result.result()
    assert (error.cause, error.detail) == (Cause.BAD_ANSWER, f"its decoder was killed by {number.name}")
    assert one.decode(PICTURE, ORDER)


def test_a_killed_zygote_is_a_sandbox_failure_and_the_next_image_works(
    limited: Callable[..., Decoders],
) -> None:
    one = limited(cpu_s=30.0, wall_s=60.0)
    one.warm()
    parent = zygote(one)
    with ThreadPoolExecutor() as pool:
        result = pool.submit(fault, one, LABOUR)
        at_work(parent)
        parent.kill()
        assert result.result().cause is Cause.SANDBOX
    assert one.decode(PICTURE, ORDER)


def test_a_zygote_that_died_while_idle_is_replaced(limited: Callable[..., Decoders]) -> None:
    one = limited()
    one.warm()
    parent, started = zygote(one), psutil.Process(one._idle[0].pid)
    parent.kill()
    psutil.wait_procs([parent, started], timeout=10)
    assert one.decode(PICTURE, ORDER)


def test_a_zygote_that_reads_nothing_times_out(
    limited: Callable[..., Decoders], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request is larger than the buffer of a pipe."""
    one = limited(wall_s=0.1)
    one.warm()
    zygote(one).suspend()
    monkeypatch.setattr(decoders, "_GRACE_S", 0.2)
    error = fault(one, bytes(4 << 20))
    assert error.cause is Cause.SANDBOX
    assert "TimeoutError" in error.detail


def test_concurrent_images_share_a_few_zygotes(limited: Callable[..., Decoders]) -> None:
    one = limited()
    sides = [8 + number for number in range(40)]
    pictures = [coded(Image.new("L", (side, side), side)) for side in sides]
    with ThreadPoolExecutor(max_workers=16) as pool:
        found = list(pool.map(lambda data: one.decode(data, ORDER).image, pictures))
    assert [image.size for image in found] == [(side, side) for side in sides]
    assert [image.getpixel((0, 0)) for image in found] == sides
    assert 1 <= len(one._idle) <= decoders.AT_ONCE


def test_waiting_too_long_for_a_decoder_is_a_time_out(
    limited: Callable[..., Decoders], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "AT_ONCE", 1)
    monkeypatch.setattr(decoders, "_WAIT_S", 0.05)
    one = limited()
    with one._zygote():
        assert fault(one, PICTURE).cause is Cause.TIMEOUT


FORKS = """
import os, sys
from workers.sandbox.decoders import DecodeOptions, of_this_process
order, picture = DecodeOptions(10_000, 1, 99), bytes.fromhex(sys.argv[1])
of_this_process().decode(picture, order)
pid = os.fork()
for _ in range(20):
    assert of_this_process().decode(picture, order).image.size == (40, 30)
print(of_this_process()._idle[0].pid, flush=True)
if pid:
    assert os.waitpid(pid, 0)[1] == 0
else:
    os._exit(0)
"""


def test_a_fork_has_its_own_decoders() -> None:
    run = subprocess.run([sys.executable, "-c", FORKS, PICTURE.hex()], capture_output=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert len(set(run.stdout.split())) == 2


ORPHAN = """
import sys
from dataclasses import replace
from pathlib import Path
from workers.sandbox.decoders import LIMITS, Decoders, DecodeOptions
one = Decoders(replace(LIMITS, cpu_s=60.0, wall_s=60.0))
one.warm()
print(one._idle[0].pid, flush=True)
one.decode(sys.stdin.buffer.read(), DecodeOptions(50_000_000, 8, 2048))
"""


def test_a_killed_worker_leaves_no_decoder() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        parent = psutil.Process(int(worker.stdout.readline()))
        worker.stdin.write(LABOUR)
        worker.stdin.close()
        child = at_work(parent)
        worker.kill()
    psutil.wait_procs([parent, child], timeout=10)
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in (parent, child))


def test_a_missing_layer_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with world("container"):
        one = Decoders()
        one.warm()
    one.close()
    assert "without these layers of the jail: netns" in caplog.text


FRAME = {"status": "decoded", "mode": "RGB", "size": [2, 1], "lossy": False}


def said(pixels: bytes = bytes(6), **fields: object) -> bytes:
    """A frame without its total length, as a zygote passes it on."""
    return protocol.pack(FRAME | fields, pixels)[protocol.LENGTH_BYTES :]


def test_a_valid_frame_is_the_image() -> None:
    assert decoders._decoded(said(), ORDER, LIMITS).image.size == (2, 1)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xff" * 20,
        said(bytes(5)),
        said(bytes(7)),
        said(mode="RGBX"),
        said(mode="P"),
        said(size=[0, 0], pixels=b""),
        said(size=[-2, -1]),
        said(size=[2049, 1], pixels=bytes(2049 * 3)),
        said(size=[2**40, 2**40]),
        said(size="large"),
        said(status="fine"),
        said(status="refused", detail="x" * 301),
    ],
)
def test_an_invalid_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(InfrastructureFault, match="tampered") as caught:
        decoders._decoded(frame, ORDER, LIMITS)
    assert caught.value.cause is Cause.BAD_ANSWER
