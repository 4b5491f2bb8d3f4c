"""Every service that was started is stopped, whatever fails at the end of a run."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace

from coordinator.run import services
from coordinator.run.services import Services


def test_a_closed_terminal_keeps_no_service_running(monkeypatch):
    """Regression: the notification was outside of the guard, and its error kept services running."""
    stopped = []

    def notify(_: str) -> None:
        raise OSError(28, "No space left on device")

    run = SimpleNamespace(_notify=notify, _stack=ExitStack(), _signals=SimpleNamespace(), _before=frozenset())
    for name in ("Redis", "Ray"):
        run._stack.callback(Services._ending(run, name, lambda name=name: stopped.append(name)))
    monkeypatch.setattr(services.processes, "end_all", lambda *_, **__: stopped.append("the rest"))
    Services._stop(run)
    assert stopped == ["Ray", "Redis", "the rest"]
