"""The product's Celery application, whose diffusers provider notes in a file what it does: `load`, and for
each prompt `step` after every step, and `end`. A prompt with the word HANGS hangs at its first step.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Any

from workers.celery_app.app import app as app
from workers.celery_app.delivery import claimer
from workers.providers.image import diffusers
from workers.providers.provider import ProviderImage, ProviderRequest

NOTES_ENV = "LLMI_TEST_NOTES"
HANGS = "HANGS"


def note(words: str) -> None:
    with Path(os.environ[NOTES_ENV]).open("a") as notes:
        notes.write(f"{words} {os.getpid()}\n")


def noting_load(*arguments: Any) -> Any:
    note("load")
    return open_pipeline(*arguments)


def noting_call(provider: diffusers.Diffusers, request: ProviderRequest) -> ProviderImage:
    diffusers._stop = functools.partial(noting_step, request.text)
    made = call(provider, request)
    note(f"end {request.text}")
    return made


def noting_step(prompt: str, *arguments: Any) -> None:
    note(f"step {prompt}")
    if HANGS in prompt:
        ctypes.PyDLL(None).sleep(600)  # as a driver may: in C, with the GIL
    stop(*arguments)


claimer.WEDGED_S = 1.0
open_pipeline, call, stop = diffusers._open, diffusers.Diffusers.call, diffusers._stop
diffusers._open = noting_load
diffusers.Diffusers.call = noting_call  # type: ignore[method-assign]
