"""The code tool: run the model's Python in the jail and store its charts.

Invariant: one renderer, and so one warm zygote, per worker process, started in that process after its fork.
"""

from __future__ import annotations

import hashlib
import logging
import os
import textwrap
import threading

from pydantic import JsonValue

from workers.errors import Cause, InfrastructureFault
from workers.jobs import JobContext, job
from workers.messages import CodePayload, Success
from workers.sandbox.renderer import Renderer
from workers.settings import ToolSettings, section
from workers.text import fences

logger = logging.getLogger(__name__)
_STORING_S = 1.0  # of the remaining time, reserved for storing the images and the outcome
_renderers: dict[int, Renderer] = {}
_lock = threading.Lock()


def _renderer() -> Renderer:
    """This process's renderer; a forked worker makes its own."""
    with _lock:
        return _renderers.setdefault(os.getpid(), Renderer())


def warm() -> None:
    """Start the zygote before the first request, and log the layers of the jail. Raises
    `InfrastructureFault(SANDBOX)` when a required layer is missing.
    """
    renderer = _renderer()
    renderer.start(section("tools", ToolSettings).code)
    level = logging.INFO if all(renderer.jail.layers.values()) else logging.WARNING
    logger.log(level, "the jail of the code tool: %s", renderer.jail)


def unfenced(code: str) -> str:
    """The code without a Markdown fence around all of it, and without a margin common to its lines."""
    text = fences.unfenced(code).strip("\r\n")
    return textwrap.dedent(text) if text[:1].isspace() else text


@job("code", CodePayload, warm=warm)
def draw(payload: CodePayload, context: JobContext) -> Success:
    """Run the code and store its figures; the first is the image. Raises what `Renderer.render` raises.

    In the source, "drawn" is more than "figures" where only `max_figures` were kept.
    """
    settings = section("tools", ToolSettings).code
    wall_s = context.remaining_s - _STORING_S
    if wall_s <= 0:
        raise InfrastructureFault(Cause.TIMEOUT, "the deadline passed before the code could start")
    drawing = _renderer().render(
        unfenced(payload.code),
        settings,
        seed=context.request.seed,
        wall_s=wall_s,
        waited=context.waits.append,
        cancelled=context.cancelled,
    )
    source: dict[str, JsonValue] = {
        "tool": "code",
        "code": payload.code,
        "sha256": hashlib.sha256(payload.code.encode()).hexdigest(),
        "seed": context.request.seed,
        "figures": len(drawing.images),
        "drawn": drawing.drawn,
    }
    return Success(images=tuple(context.blobs.put(image) for image in drawing.images), source=source)
