"""Whatever code does, its failure is the model's, and the next job runs in the same zygote and finds nothing
of it.

Were it able to look like an infrastructure failure, a policy could learn to have its bad samples masked; were
the next job to suffer, one document could spoil another's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sandbox_blame import ATTEMPTS
from sandbox_worlds import CHART, failure, shared, started, zygote
from waiting import wait_until

from workers.errors import Cause, JobError, ModelFault
from workers.sandbox.renderer import Renderer
from workers.settings import CodeSettings

SETTINGS = CodeSettings(cpu_s=1, wall_s=1.5, memory_mb=256, output_mb=2, require=())
MEMORY = CodeSettings(memory_mb=400, require=())
# Both layers; the inner one alone, without a mount; the outer one alone, in both ways.
WORLDS = ("here", "container", "outer", "outer by bubblewrap")


@pytest.fixture(scope="module")
def renderer(request: pytest.FixtureRequest) -> Renderer:
    return shared(request.param)


@pytest.mark.parametrize("renderer", WORLDS, indirect=True, scope="module")
@pytest.mark.parametrize("code", ATTEMPTS.values(), ids=ATTEMPTS)
def test_no_code_shifts_its_failure_to_infrastructure_or_the_next_job(renderer: Renderer, code: str) -> None:
    renderer.render(CHART, SETTINGS)  # a zygote that lives
    before = zygote(renderer).pid
    detail = ""
    try:
        renderer.render(f"{code}\nplt.plot([1])", SETTINGS)
    except ModelFault as fault:
        detail = fault.detail
    assert "LEFT" not in detail
    assert renderer.render(CHART, SETTINGS).images
    assert zygote(renderer).pid == before
    assert zygote(renderer).children(recursive=True) == []


def test_there_are_many_attempts() -> None:
    assert len(ATTEMPTS) >= 60


@pytest.fixture
def killed(request: pytest.FixtureRequest) -> Iterator[Callable[[str], JobError]]:
    """The failure of code that the machine kills, as it does when its memory runs out, once it has opened a
    file.
    """
    renderer = started("here")

    def run(code: str) -> JobError:
        def kill() -> None:
            wait_until(lambda: any(job.num_fds() > 4 for job in zygote(renderer).children()))
            zygote(renderer).children()[0].kill()

        killing = threading.Thread(target=kill)
        killing.start()
        error = failure(renderer, f"{code}\nf = open('x', 'w'); import time; time.sleep(9)", MEMORY)
        killing.join()
        return error

    yield run
    renderer.close()


def test_code_with_much_memory_is_the_cause_of_an_oom_kill(killed: Callable[[str], JobError]) -> None:
    error = killed("x = b'x' * (150 << 20)")
    assert error.cause is Cause.CODE_LIMIT
    assert "more than the machine has left" in error.detail


def test_code_with_little_memory_is_not_the_cause_of_an_oom_kill(killed: Callable[[str], JobError]) -> None:
    assert killed("").cause is Cause.SANDBOX


def test_a_job_is_killed_first_when_memory_runs_out() -> None:
    renderer = shared("container")
    running = threading.Thread(target=failure, args=(renderer, "import time; time.sleep(9)", SETTINGS))
    running.start()
    forks = zygote(renderer)
    wait_until(lambda: bool(forks.children()))
    [job] = forks.children()
    score = Path(f"/proc/{job.pid}/oom_score_adj")
    wait_until(lambda: score.read_text().strip() == "1000")
    assert Path(f"/proc/{forks.pid}/oom_score_adj").read_text().strip() != "1000"
    running.join()
