"""Code that finds the pipe of its own result, or ends its own process: it can only ever fail itself.

Were it able to look like an infrastructure failure, a policy could learn to have its bad samples masked.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sandbox_worlds import CHART, failure, shared

from workers.errors import Cause
from workers.sandbox.renderer import Renderer
from workers.settings import CodeSettings

SETTINGS = CodeSettings(cpu_s=5, wall_s=20, memory_mb=512, output_mb=4, require=())


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return shared("here")


@pytest.fixture(autouse=True)
def _ordinary_chart_afterwards(renderer: Renderer) -> Iterator[None]:
    yield
    assert len(renderer.render(CHART, SETTINGS).images) == 1


FORGER = """
import json, os, struct

def write(data):
    for number in range(3, 32):
        try:
            os.write(number, data)
        except OSError:
            pass
    os._exit(0)

def send(figures, body):
    text = json.dumps({"status": "drawn", "figures": figures}).encode()
    write(struct.pack("<II", 4 + len(text) + len(body), len(text)) + text + body)

"""
FORGERIES = {
    "noise": "write(b'\\xff' * 100)",
    "a jail that failed": "write(b'S' + b'the jail failed')",
    "an empty result": "write(struct.pack('<II', 6, 2) + b'{}')",
    "no JSON": "write(struct.pack('<II', 8, 4) + b'\\xff\\xfe\\x00\\x01')",
    "deep JSON": "write(struct.pack('<II', 100004, 100000) + b'[' * 100000)",
    "a header beyond the end": "write(struct.pack('<II', 6, 1 << 31) + b'{}')",
    "no length at all": "write(struct.pack('<I', 0))",
    "no image": "send([], b'')",
    "no list of figures": "send(3, b'0123456789')",
    "an encoded image": "send([['PNG', 1, 1]], b'0123456789')",
    "a mode of its own": "send([['I;16B', 1, 1]], b'0123456789')",
    "negative sides": "send([['RGB', -1, -1]], b'0123456789')",
    "sides of nothing": "send([['RGB', 0, 10]], b'0123456789')",
    "sides without end": "send([['RGB', 10**4000, 1]] * 2, b'0123456789')",
    "half an image": "send([['RGB', 10, 10]], bytes(299))",
    "more than an image": "send([['RGB', 10, 10]], bytes(301))",
    "one image for two": "send([['RGB', 10, 10], ['RGB', 10, 10]], bytes(300))",
    "more images than are kept": "send([['RGB', 10, 10]] * 9, bytes(2700))",
    "a speck, which no judge would take": "send([['RGB', 1, 1]], bytes(3))",
    "a thread, which no judge would take": "send([['RGB', 2000, 10]], bytes(60_000))",
    "an image of a billion pixels": "send([['RGB', 40000, 40000]], b'0123456789')",
    "more pixels than are allowed": "send([['RGB', 5000, 3300]], bytes(49_500_000))",
    "a header of millions of lists": (
        "text = b'{\"a\":[' + b'[],' * 1_000_000 + b'0]}'\n"
        "write(struct.pack('<II', 4 + len(text), len(text)) + text)"
    ),
}


@pytest.mark.parametrize("code", FORGERIES.values(), ids=FORGERIES)
def test_forged_results_are_the_models_fault(renderer: Renderer, code: str) -> None:
    error = failure(renderer, FORGER + code, SETTINGS)
    assert error.cause in (Cause.CODE_RAISED, Cause.CODE_LIMIT)


DOUBLED = """
image = bytes(300)
text = json.dumps({"status": "drawn", "figures": [["RGB", 10, 10]]}).encode()
frame = struct.pack("<II", 4 + len(text) + len(image), len(text)) + text + image
write(frame * 3)
"""


def test_a_duplicate_result_is_one_outcome(renderer: Renderer) -> None:
    """The first frame counts, and the next job has its own answer."""
    assert len(renderer.render(FORGER + DOUBLED, SETTINGS).images) == 1
    assert "mine" in failure(renderer, "raise ValueError('mine')", SETTINGS).detail


ENDS = {
    "exits": ("import os; os._exit(0)", "ended without a result"),
    "crashes": ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    "aborts": ("import os; os.abort()", "SIGABRT"),
    "closes everything": ("import os; os.closerange(0, 100); plt.plot([1])", "ended without a result"),
    "closes its result": ("import os; os.closerange(3, 100)\nwhile True: pass", "closed its result"),
}


@pytest.mark.parametrize(("code", "detail"), ENDS.values(), ids=ENDS)
def test_a_process_that_ends_itself_is_the_models_fault(renderer: Renderer, code: str, detail: str) -> None:
    error = failure(renderer, code, SETTINGS)
    assert error.cause is Cause.CODE_RAISED
    assert detail in error.detail
