"""The code tool as a job: a request in, stored charts or a typed failure out."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers import jobs
from workers.errors import Cause
from workers.messages import CodePayload, Failure, Outcome, Request, Success
from workers.storage.blobs import BlobStore
from workers.tools import code

JOBS = jobs.load_jobs()
CHART = "plt.figure().text(0.5, 0.5, 'x')"


@pytest.fixture(scope="module", autouse=True)
def _renderer_ends_with_the_module() -> Iterator[None]:
    yield
    code._renderer().close()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path))


def _run(text: str, blobs: BlobStore, *, timeout_s: float = 60, seed: int = 0) -> Outcome:
    request = Request.make("code", CodePayload(code=text), timeout_s=timeout_s, seed=seed)
    return jobs.run(request, blobs)


def test_all_four_tools_are_registered() -> None:
    assert {"search", "diffusion", "edit", "code"} <= set(JOBS)


def test_every_figure_is_stored_and_the_first_is_the_image(blobs: BlobStore) -> None:
    two = "for n in (1, 2): plt.figure(figsize=(3 * n, 1)).add_axes((0, 0, 1, 1)).plot([1])"
    result = _run(two, blobs).result
    assert isinstance(result, Success)
    assert (result.source["figures"], result.source["drawn"]) == (2, 2)
    assert (result.source["code"], result.source["seed"]) == (two, 0)
    assert result.source["sha256"] == hashlib.sha256(two.encode()).hexdigest()
    first, second = result.images
    assert first.width < second.width
    assert all(blobs.get(image).startswith(b"\x89PNG") for image in result.images)


def test_code_of_a_cancelled_request_ends_at_once(blobs: BlobStore) -> None:
    request = Request.make("code", CodePayload(code="while True: pass"), timeout_s=60)
    result = jobs.run(request, blobs, lambda: True).result
    assert isinstance(result, Failure)
    assert result.cause is Cause.CANCELLED
    assert isinstance(_run(CHART, blobs).result, Success)


def test_figures_beyond_the_limit_are_counted_in_the_source(blobs: BlobStore) -> None:
    nine = "for n in range(9): plt.figure(figsize=(1, 1)).text(0.5, 0.5, str(n))"
    result = _run(nine, blobs).result
    assert isinstance(result, Success)
    assert (len(result.images), result.source["figures"], result.source["drawn"]) == (8, 8, 9)


FORMS = {
    "bare": CHART,
    "fenced": f"```python\n{CHART}\n```",
    "fenced without a language": f"\n```\n{CHART}\n```\n",
    "indented": f"\n    x = 1\n    {CHART}\n",
    "fenced and indented": f"```py\n    x = 1\n    {CHART}\n    ```",
    "windows": f"x = 1\r\n{CHART}\r\n",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_the_forms_in_which_models_write_code(text: str, blobs: BlobStore) -> None:
    assert _run(text, blobs).ok


def test_only_one_outer_fence_is_removed() -> None:
    inner = "x = '''\n```python\n1\n```\n'''"
    assert code.unfenced(inner) == inner
    assert code.unfenced(f"```python\n{inner}\n```") == inner
    assert code.unfenced("```python\nx = 1") == "```python\nx = 1"


FAILURES = {
    "raises": ("plt.plot(y)", Cause.CODE_RAISED),
    "draws nothing": ("x = 1", Cause.NO_FIGURE),
    "is not Python": ("a chart of sales", Cause.CODE_RAISED),
    "takes too much": ("np.ones(1 << 31)", Cause.CODE_LIMIT),
}


@pytest.mark.parametrize(("text", "cause"), FAILURES.values(), ids=FAILURES)
def test_failures_of_the_code_are_the_models_fault(text: str, cause: Cause, blobs: BlobStore) -> None:
    result = _run(text, blobs).result
    assert isinstance(result, Failure)
    assert result.cause is cause


def test_a_deadline_during_the_code_is_a_timeout(blobs: BlobStore) -> None:
    result = _run("import time; time.sleep(60)", blobs, timeout_s=code._STORING_S + 0.5).result
    assert isinstance(result, Failure)
    assert result.cause is Cause.TIMEOUT


def test_the_run_time_of_an_outcome_excludes_the_start_of_the_zygote(blobs: BlobStore) -> None:
    code._renderer().close()
    outcome = _run("import time; time.sleep(0.5)", blobs)
    assert outcome.waited_s > 0  # an interpreter and its libraries
    assert outcome.run_s >= 0.5
    assert outcome.run_s == pytest.approx(outcome.finished - outcome.started - outcome.waited_s)


def test_the_same_request_makes_the_same_image(blobs: BlobStore) -> None:
    text = "plt.figure(figsize=(1, 1)).text(0, 0, str(np.random.rand()))"
    once, again, other = (_run(text, blobs, seed=seed).result for seed in (1, 1, 2))
    assert isinstance(once, Success)
    assert isinstance(again, Success)
    assert isinstance(other, Success)
    assert once.images == again.images
    assert once.images != other.images


FORKED = """
import os
from workers.tools import code
mine = code._renderer()
if os.fork() == 0:
    os._exit(0 if code._renderer() is not mine else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_forked_worker_has_a_renderer_of_its_own() -> None:
    assert subprocess.run([sys.executable, "-c", FORKED]).returncode == 0


def test_the_tools_are_cheap_to_import() -> None:
    """Worker parents must start fast: no plotting and no model library is loaded with them."""
    heavy = ["matplotlib", "seaborn", "pandas", "torch", "diffusers", "transformers"]
    check = f"import sys, workers.tools; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
