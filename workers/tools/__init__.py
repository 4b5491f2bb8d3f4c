"""The jobs of the tools. Importing this package registers all of them.

May import every other part of `workers` but `celery_app`, `client` and `process`.
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
