"""Fixtures for tests of the coordinator."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[object], Path]:
    """Writes a document, or a text as it is, to a YAML file; returns its path."""

    def write(document: object) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
        return path

    return write
