"""The renderer: required layers, zygotes and workers that die, and folders that must be removed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sandbox_worlds import CHART, MACHINES, started, zygote
from waiting import wait_until

from workers.errors import Cause, InfrastructureFault
from workers.sandbox import renderer as module
from workers.sandbox.layers import folder, paths
from workers.sandbox.renderer import Renderer
from workers.settings import CodeSettings

SETTINGS = CodeSettings(require=())


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    jailed = started("here")
    yield jailed
    jailed.close()


def _zygote(renderer: Renderer) -> psutil.Process:
    renderer.start(SETTINGS)
    return zygote(renderer)


def _gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


OUTER, INNER = {"netns", "private_root", "processes"}, {"landlock", "seccomp"}
# Nobody can read a Python in a closed home, such as root's, but in a root that is made of its parts.
OPEN = all(folder.stat().st_mode & 0o001 for folder in Path(sys.executable).resolve().parents)
HOME = set() if OPEN else {"unprivileged"}
HELD = {  # who makes the outer layer, and what does not hold
    "namespaces": ("namespaces", set()),
    "user namespaces": ("namespaces", {"unprivileged"}),
    "bubblewrap, user namespaces": ("bubblewrap", {"unprivileged"}),
    "bubblewrap without mounts": ("bubblewrap", set()),
    "container": ("none", OUTER | HOME),
    "container without questions": ("none", OUTER | HOME | {"files"}),
    "container without landlock": ("none", OUTER | HOME | {"landlock", "files"}),
    "outer": ("namespaces", INNER),
    "outer, user namespaces": ("namespaces", INNER | {"unprivileged"}),
    "outer by bubblewrap": ("bubblewrap", INNER),
}


@pytest.mark.parametrize("machine", HELD)
def test_active_layers_are_known_and_charts_are_drawn(machine: str) -> None:
    maker, missing = HELD[machine]
    assert set(HELD) | {"here"} == set(MACHINES)
    jailed = started(machine)
    try:
        assert jailed.jail.maker == maker
        assert {name for name, held in jailed.jail.layers.items() if not held} == missing
        assert jailed.render(CHART, SETTINGS)
    finally:
        jailed.close()


def test_a_required_layer_that_is_missing_refuses_all_code() -> None:
    """A container without namespaces draws only if the configuration allows it."""
    contained = started("container")
    try:
        with pytest.raises(InfrastructureFault) as caught:
            contained.render(CHART, CodeSettings())
        assert contained.render(CHART, CodeSettings(require=("landlock", "seccomp")))
    finally:
        contained.close()
    assert caught.value.cause is Cause.SANDBOX
    assert "lacks netns, private_root, processes" in caught.value.detail
    assert "it needs bubblewrap, user namespaces" in caught.value.detail


BARE = """
import os, sys
from workers.sandbox.jailed import child, probe
from workers.sandbox.layers import paths
from workers.sandbox.layers.folder import Folder
from workers.sandbox.layers.outer import OuterLayer
bare = child.Jail(False, False, None, False, tuple(paths.readable()), paths.DEVICES)
base = sys.argv[1]
for check in (
    probe._files_are_refused, probe._calls_are_refused, probe._is_that_user_and_can_read,
    probe._network_is_unreachable, probe._nobody_else_is_there, probe._creations_are_counted,
):
    print(probe._holds(bare, check, Folder(base, OuterLayer("none"), 1), None))
found = probe.probe(OuterLayer("none"), base, 1)
print(found.layers["netns"], found.layers["private_root"], found.layers["processes"])
"""


def test_the_probe_finds_no_layer_where_there_is_none(tmp_path: Path) -> None:
    """Each check is false in a child without a jail."""
    command = [sys.executable, "-c", BARE, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False"] * 9


def test_a_killed_zygote_is_replaced(renderer: Renderer) -> None:
    _zygote(renderer).kill()
    assert renderer._zygote is not None
    first = renderer._zygote
    wait_until(lambda: not first.alive)
    assert renderer.render(CHART, SETTINGS)


def test_a_zygote_that_dies_in_a_job_is_an_infrastructure_fault(renderer: Renderer) -> None:
    forks = _zygote(renderer)
    forks.suspend()  # so that the request is written, and the answer never comes
    killer = subprocess.Popen(["/bin/sh", "-c", f"sleep 0.3; kill -9 {forks.pid}"])
    with pytest.raises(InfrastructureFault) as caught:
        renderer.render(CHART, SETTINGS)
    killer.wait()
    assert caught.value.cause is Cause.SANDBOX
    assert renderer.render(CHART, SETTINGS)


def test_a_zygote_that_does_not_answer_is_replaced(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    forks = _zygote(renderer)
    forks.suspend()
    monkeypatch.setattr(module, "_GRACE_S", 0.2)
    with pytest.raises(InfrastructureFault, match="TimeoutError"):
        renderer.render(CHART, SETTINGS, wall_s=0.1)
    monkeypatch.undo()
    wait_until(lambda: _gone(forks))
    assert renderer.render(CHART, SETTINGS)


def test_cancelled_code_is_killed_and_the_next_chart_is_drawn(renderer: Renderer) -> None:
    forks = _zygote(renderer)
    running: list[psutil.Process] = []

    def cancelled() -> bool:
        """As soon as the code runs."""
        running.extend(forks.children(recursive=True))
        return bool(running)

    with pytest.raises(InfrastructureFault) as caught:
        renderer.render("while True: pass", SETTINGS, cancelled=cancelled)
    assert caught.value.cause is Cause.CANCELLED
    wait_until(lambda: all(map(_gone, (forks, *running))))
    assert renderer.render(CHART, SETTINGS)


ORPHAN = """
from workers.sandbox.renderer import Renderer
from workers.settings import CodeSettings
renderer = Renderer()
settings = CodeSettings(wall_s=50, require=())
renderer.start(settings)
print(2 + renderer.jail.layers["processes"], flush=True)
renderer.render("import time; time.sleep(600)", settings)
"""


def test_a_killed_worker_leaves_no_process() -> None:
    """The zygote notices that its worker is gone even while a job runs, and kills the job."""
    worker = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    count = int(worker.stdout.readline())
    process = psutil.Process(worker.pid)
    wait_until(lambda: len(process.children(recursive=True)) == count)
    below = process.children(recursive=True)
    worker.kill()
    worker.wait()
    worker.stdout.close()
    wait_until(lambda: all(map(_gone, below)))


def test_nothing_is_left_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job's folder is removed after the job, and without a private root the zygote's folder with it."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o711)  # as /tmp is; pytest's own lets no other user through
        monkeypatch.setattr(tempfile, "tempdir", folder)
        contained = started("container")
        contained.render("open('left', 'w').write('x')\n" + CHART, SETTINGS)
        assert not list(place.rglob("left"))
        contained.close()
        assert not list(place.iterdir())


def test_the_project_is_not_readable_unless_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout may contain keys and data. An installed package is beside those that charts need."""
    monkeypatch.syspath_prepend(paths.PROJECT)
    assert not [path for path in paths.readable() if f"{paths.PROJECT}/".startswith(f"{path}/")]
    packages = sysconfig.get_path("purelib")
    monkeypatch.setattr(paths, "PROJECT", packages)
    assert any(packages.startswith(path) for path in paths.readable())


def test_a_tree_of_any_depth_is_removed(tmp_path: Path) -> None:
    """Deeper than Python's recursion limit and the longest path, with a folder that may not be entered."""
    top = tmp_path / "job"
    top.mkdir()
    back = os.open(".", os.O_RDONLY)
    os.chdir(top)
    for _ in range(1100):
        os.mkdir("folder")
        Path("file").touch()
        os.chdir("folder")
    os.mkdir("closed", 0)
    os.fchdir(back)
    os.close(back)
    folder.remove_tree(str(top))
    assert not top.exists()


def test_every_chart_is_a_fork_of_one_process_that_has_imported_matplotlib(renderer: Renderer) -> None:
    """A chart costs a fork, not an interpreter that imports matplotlib (more than a second)."""
    renderer.render(CHART, SETTINGS)
    parent = zygote(renderer)
    assert any("matplotlib" in library.path for library in parent.memory_maps())
    for _ in range(3):
        renderer.render(CHART, SETTINGS)
        assert zygote(renderer) == parent
