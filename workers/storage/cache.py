"""The folder for what can be made again at any time: parts of the demo, images that passed the gate."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_ENV = "LLMI_CACHE"


def cache_folder() -> Path:
    """`LLMI_CACHE`, or `.cache` in the working directory."""
    return Path(os.environ.get(CACHE_ENV) or ".cache").expanduser().absolute()
