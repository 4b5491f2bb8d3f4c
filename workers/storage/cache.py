"""The cache folder: what can be computed again at any time, such as parts of the demo."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_ENV = "LLMI_CACHE"


def cache_folder() -> Path:
    """`LLMI_CACHE`, or `.cache` in the working directory."""
    return Path(os.environ.get(CACHE_ENV) or ".cache").expanduser().absolute()
