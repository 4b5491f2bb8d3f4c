"""Every shipped training configuration can be rehearsed, with a vocabulary of the published size.

Run by `make rehearse`: each takes minutes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from rehearsals import rehearse

from coordinator.config import files

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]
TRAINING = [name for name in files.shipped() if "train" in files.read(name)[0]]
VOCABULARY = 151_936  # of Qwen3


@pytest.mark.parametrize("name", TRAINING)
def test_a_shipped_configuration_is_rehearsed(name: str, tmp_path: Path) -> None:
    done = rehearse(name, tmp_path, VOCABULARY)
    assert [step["training/global_step"] for step in done.metrics] == [1, 2]
    assert done.result["lost"] == 0
