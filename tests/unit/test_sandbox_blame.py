"""Whatever code does, its failure is the model's, and the next job runs in the same zygote and finds nothing
of it.

Were it able to look like a failure of ours, a policy could learn to have its bad samples masked; were the
next job to suffer, one document could spoil another's.
"""

from __future__ import annotations

import pytest
from sandbox_blame import ATTEMPTS
from sandbox_worlds import CHART, shared, zygote

from workers.errors import ModelFault
from workers.sandbox.client import Renderer
from workers.settings import CodeSettings

SETTINGS = CodeSettings(cpu_s=1, wall_s=1.5, memory_mb=256, output_mb=2, require=())
# Both layers; the inner one alone, without a mount; the outer one alone, in both ways.
WORLDS = ("here", "container", "outer", "outer by bubblewrap")


@pytest.fixture(scope="module")
def renderer(request: pytest.FixtureRequest) -> Renderer:
    return shared(request.param)


@pytest.mark.parametrize("renderer", WORLDS, indirect=True, scope="module")
@pytest.mark.parametrize("code", ATTEMPTS.values(), ids=ATTEMPTS)
def test_no_code_makes_its_failure_ours_or_the_next_jobs(renderer: Renderer, code: str) -> None:
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
