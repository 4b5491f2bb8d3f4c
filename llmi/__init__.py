"""The Python interface of LLM-I: `QueueClient`, `load_config`, `train`, and what they take and return.

May import everything, on first use only, so that `import llmi` is cheap. The other packages import nothing of
llmi; they load `llmi.demo` and `llmi.load` by entry points.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordinator.config.settings import RunConfig
    from coordinator.config.settings import load as load_config
    from coordinator.watch.summary import Summary
    from policy.ledger.reader import read_ledger
    from workers.client.client import QueueClient
    from workers.client.handle import RequestHandle
    from workers.errors import ConfigError, InfrastructureFault
    from workers.messages import (
        CodePayload,
        DiffusionPayload,
        EditPayload,
        Failure,
        Outcome,
        Request,
        SearchPayload,
        Success,
    )
    from workers.settings import QueueSettings
    from workers.storage.blobs import BlobStore

__all__ = [
    "BlobStore",
    "CodePayload",
    "ConfigError",
    "DiffusionPayload",
    "EditPayload",
    "Failure",
    "InfrastructureFault",
    "Outcome",
    "QueueClient",
    "QueueSettings",
    "Request",
    "RequestHandle",
    "RunConfig",
    "SearchPayload",
    "Success",
    "Summary",
    "load_config",
    "read_ledger",
    "train",
]

_MODULES = {
    "coordinator.config.settings": ("RunConfig",),
    "coordinator.watch.summary": ("Summary",),
    "policy.ledger.reader": ("read_ledger",),
    "workers.client.client": ("QueueClient",),
    "workers.client.handle": ("RequestHandle",),
    "workers.errors": ("ConfigError", "InfrastructureFault"),
    "workers.messages": (
        *("CodePayload", "DiffusionPayload", "EditPayload", "SearchPayload"),
        *("Failure", "Outcome", "Request", "Success"),
    ),
    "workers.settings": ("QueueSettings",),
    "workers.storage.blobs": ("BlobStore",),
}
_PLACES = {name: (module, name) for module, names in _MODULES.items() for name in names} | {
    "load_config": ("coordinator.config.settings", "load")
}


def train(config: RunConfig, runs: Path | str = "runs", *, resume: bool = False) -> Summary:
    """Run `config` in `runs/<config.name>` as `llmi train` does, and return its summary.

    `resume`: resume the run that died there. Call it in the main thread: it handles SIGINT and SIGTERM.
    Raises `ConfigError` before anything was started; `TrainerDied`, `InfrastructureFault` or `Stopped` after.
    """
    import time

    from coordinator.console.terminal import make_console
    from coordinator.host.processes import MemoryWatch
    from coordinator.host.signals import StopSignals
    from coordinator.run.launch import launch

    began = time.monotonic()
    with StopSignals() as signals, MemoryWatch() as memory:
        return launch(config, Path(runs), make_console(stderr=True), signals, memory, began, resume)


def __getattr__(name: str) -> Any:
    """Import a public name on its first use."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    value = globals()[name] = getattr(import_module(module), attribute)
    return value
