"""Files of code without a file system of limited size: the kernel notifies the zygote before each file, or
code has no folder at all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandbox_worlds import CHART, failure, shared

from workers.errors import Cause, InfrastructureFault
from workers.sandbox import decoders, protocol
from workers.sandbox.jailed import child, job, zygote
from workers.sandbox.layers import folder, limits
from workers.sandbox.layers.outer import OuterLayer
from workers.settings import CodeSettings

SETTINGS = CodeSettings(cpu_s=5, wall_s=20, memory_mb=384, output_mb=2, require=())
WITHOUT = ("container without questions", "container without landlock")


def test_each_creation_counts_once_and_the_first_too_many_is_refused() -> None:
    code = "import os\nfor n in range({}): open(str(n), 'w').close(); open(str(n)).close()\nplt.plot([1])"
    renderer = shared("container")
    assert renderer.render(code.format(limits.MAX_ENTRIES), SETTINGS).images
    error = failure(renderer, code.format(limits.MAX_ENTRIES + 1), SETTINGS)
    assert error.cause is Cause.CODE_LIMIT


def test_each_job_may_create_as_many() -> None:
    renderer = shared("container")
    for _ in range(3):
        code = f"for n in range({limits.MAX_ENTRIES - 1}): open(str(n), 'w').close()\nplt.plot([1])"
        assert renderer.render(code, SETTINGS).images


def test_threads_create_under_one_count() -> None:
    code = (
        "import threading\ndef make(t):\n for n in range(50): open(f'{t}-{n}', 'w').close()\n"
        "for t in range(8): threading.Thread(target=make, args=(t,)).start()\n"
        "for t in threading.enumerate()[1:]: t.join()\nimport os\nraise ValueError(len(os.listdir()))"
    )
    error = failure(shared("bubblewrap without mounts"), code, SETTINGS)
    assert int(error.detail.split()[1]) == limits.MAX_ENTRIES


@pytest.mark.parametrize("machine", WITHOUT)
def test_without_limits_on_files_code_has_no_folder(machine: str) -> None:
    """Code can draw. Writing a file anywhere fails, and is the code's failure."""
    renderer = shared(machine)
    assert renderer.render(CHART, SETTINGS).images
    error = failure(renderer, "plt.plot([1]); plt.gcf().canvas.print_png('x.png')", SETTINGS)
    assert error.cause is Cause.CODE_RAISED
    assert "no folder to write files in" in error.detail
    left = Path(tempfile.gettempdir()) / "llmi-left"
    for attempt in (f"open({str(left)!r}, 'w')", f"import os; os.mkdir({str(left)!r})"):
        assert failure(renderer, attempt, SETTINGS).cause is Cause.CODE_RAISED
    assert not left.exists()


def test_a_configuration_can_require_the_folder() -> None:
    with pytest.raises(InfrastructureFault) as caught:
        shared(WITHOUT[0]).render(CHART, CodeSettings(require=("files",)))
    assert "lacks files" in caught.value.detail
    assert "seccomp of Linux 5.5" in caught.value.detail


def test_waiting_for_a_disk_does_not_extend_the_limits() -> None:
    """A process that waits for a disk cannot be killed: it seems to have waited."""
    code = "import os\nwith open('x', 'wb') as x: x.write(b'x'); os.fsync(x); os.fdatasync(x)\nplt.plot([1])"
    assert shared("container").render(code, SETTINGS).images


def _names(top: Path) -> None:
    for number in range(30):
        for process in (1, os.getpid(), os.getppid()):
            (top / f"moved-{number}-{process}" / "a" / "b").mkdir(parents=True)


def _long(top: Path) -> None:
    script = (
        f"import os; os.chdir({str(top)!r})\nfor n in range(40): os.mkdir('x' * 255); os.chdir('x' * 255)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def _kinds(top: Path) -> None:
    (top / "file").touch(0)
    os.mkfifo(top / "pipe")
    os.link(top / "file", top / "link")
    (top / "away").symlink_to("/")
    (top / "nowhere").symlink_to("missing")
    (top / "closed" / "inner").mkdir(parents=True)
    (top / "closed" / "elsewhere").symlink_to(top.parent)
    (top / "closed" / "inner").chmod(0)
    (top / "closed").chmod(0o300)


def _bytes(top: Path) -> None:
    for name in (b"\xff", b"\n", b"-rf", b"*", b"x" * 255):
        os.mkdir(os.fsencode(top) + b"/" + name)


def _many(top: Path) -> None:
    for number in range(5000):
        os.close(os.open(top / str(number), os.O_CREAT))


NAMES = st.binary(min_size=1, max_size=40).filter(
    lambda name: not set(name) & set(b"/\0") and name.strip(b".")
)
TREES = st.recursive(
    st.sampled_from([None, 0o700]),
    lambda inner: st.tuples(
        st.sampled_from([0, 0o300, 0o400, 0o700]), st.dictionaries(NAMES, inner, max_size=4)
    ),
    max_leaves=30,
)


def _grow(place: bytes, tree: Any) -> None:
    """Make a file (None), an empty folder (a mode), or a folder with contents (a mode and a dictionary)."""
    if tree is None:
        os.close(os.open(place, os.O_CREAT))
        return
    mode, inner = (tree, {}) if isinstance(tree, int) else tree
    os.mkdir(place)
    for name, below in inner.items():
        _grow(place + b"/" + name, below)
    os.chmod(place, mode)


@given(tree=TREES)
@settings(max_examples=60, deadline=None)
def test_any_tree_can_be_removed(tree: Any) -> None:
    with tempfile.TemporaryDirectory() as above:
        top = os.path.join(above, "job")
        os.mkdir(top)
        _grow(os.fsencode(top) + b"/x", tree)
        folder.remove_tree(top)
        assert os.listdir(above) == []


def test_a_folder_that_cannot_be_removed_ends_the_zygote_after_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stuck(folder.Folder):
        def make(self, user: int | None) -> None: ...
        def remove(self) -> None:
            raise OSError("stuck")

    answer = {"run_s": 0.0}
    monkeypatch.setattr(job, "Folder", Stuck)
    monkeypatch.setattr(job.Jobs, "_watch", lambda *_: (answer, memoryview(b"frame")))
    jail = child.Jail(False, False, None, False, (), ())
    jobs = job.Jobs(jail, OuterLayer("none"), True, "/", 0, 0, 0)
    (read_order, write_order), (read_answer, write_answer) = os.pipe(), os.pipe()
    os.write(write_order, protocol.pack({"limits": asdict(decoders.LIMITS) | {"files_mb": 1}, "options": {}}))
    with pytest.raises(job.FolderNotRemoved):
        zygote._serve_one(jobs, lambda *_: child.Report({}), read_order, write_answer)
    size = protocol.length(protocol.read_exactly(read_answer, protocol.LENGTH_BYTES))
    header, body = protocol.unpack(protocol.read_exactly(read_answer, size))
    assert bytes(body) == b"frame"
    assert header["run_s"] >= 0.0
    for descriptor in (read_order, write_order, read_answer, write_answer):
        os.close(descriptor)


@pytest.mark.parametrize("make", [_names, _long, _kinds, _bytes, _many])
def test_any_content_of_a_folder_can_be_removed(make: object, tmp_path: Path) -> None:
    top, beside = tmp_path / "job", tmp_path / "beside"
    top.mkdir()
    beside.touch()
    assert callable(make)
    make(top)
    folder.remove_tree(str(top))
    assert list(tmp_path.iterdir()) == [beside]
