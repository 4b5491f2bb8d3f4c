"""Which layers of the jail a machine has, and what to do about those that are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from workers.sandbox.layers.outer import Maker
from workers.sandbox.process import ZygoteProcess
from workers.settings import CodeSettings

_NAMESPACES = "it needs bubblewrap, user namespaces, or root with CAP_SYS_ADMIN"
_HINTS = {
    "landlock": "it needs Linux 5.13 or later with landlock among the active security modules",
    "seccomp": "it needs Linux with CONFIG_SECCOMP_FILTER on x86_64 or aarch64",
    "netns": _NAMESPACES,
    "private_root": _NAMESPACES,
    "processes": _NAMESPACES,
    "files": "it needs a mount of its own in the private root, or landlock and seccomp of Linux 5.5 or later "
    "that nothing else in this container listens to",
    "unprivileged": "it needs a worker that is not root, or root that may become another user, and a Python "
    "that others can read",
}


class JailReport(NamedTuple):
    """The layers of the jail on one machine, as found by trying them.

    `layers`, by name: `landlock` and `seccomp` are the inner layer; `netns`, `private_root` and `processes`
    the outer one, which `maker` made; `unprivileged`; `files`: jobs get a folder, which the kernel limits in
    size.
    """

    layers: dict[str, bool]
    maker: Maker

    def __str__(self) -> str:
        held = [name for name, holds in self.layers.items() if holds]
        missing = [name for name, holds in self.layers.items() if not holds]
        outer = "without an outer layer" if self.maker == "none" else f"in {self.maker}"
        return f"{outer}; active: {', '.join(held) or 'none'}" + f"; missing: {', '.join(missing)}" * bool(
            missing
        )


def probe() -> JailReport:
    """Try each layer in a short-lived zygote.

    Raises `InfrastructureFault(SANDBOX)` if that does not start.
    """
    zygote = ZygoteProcess("probe")
    zygote.close()
    return JailReport(zygote.layers, zygote.maker)


def missing_layers(settings: CodeSettings, layers: Mapping[str, bool]) -> str:
    """The required layers that are missing and how to get them, in one message; empty if none is."""
    missing = [name for name in settings.require if not layers.get(name)]
    if not missing:
        return ""
    return (
        f"the jail lacks {', '.join(missing)}, which tools.code.require names. Provide it "
        f"({_hints(missing)}), or remove it from tools.code.require and accept a weaker jail"
    )


def _hints(missing: Iterable[str]) -> str:
    by_hint: dict[str, list[str]] = {}
    for name in missing:
        by_hint.setdefault(_HINTS[name], []).append(name)
    return "; ".join(f"{', '.join(names)}: {hint}" for hint, names in by_hint.items())
