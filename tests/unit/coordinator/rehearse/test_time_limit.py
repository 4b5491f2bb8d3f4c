"""Making the tiny model of a rehearsal has a time limit, since it may download from the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.rehearse import program, rehearse
from workers.errors import Cause, InfrastructureFault


def test_a_download_that_hangs_ends_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(program, "LIMIT_S", 0.1)
    with pytest.raises(InfrastructureFault, match="hf download owner/model") as raised:
        rehearse._tiny("owner/model", tmp_path / "model")
    assert raised.value.cause is Cause.TIMEOUT
