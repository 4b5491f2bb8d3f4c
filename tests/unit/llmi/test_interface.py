"""The public Python interface: every name is there, and importing it is cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import llmi
from coordinator.run import launch as launching


@pytest.mark.parametrize("name", llmi.__all__)
def test_every_public_name_is_found(name: str):
    assert getattr(llmi, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = llmi.nothing


def test_importing_it_imports_no_library():
    heavy = {"celery", "pydantic", "ray", "redis", "rich", "torch"}
    code = f"import sys, llmi; print(sorted({heavy!r} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_train_launches_the_run_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[object] = []

    def launch(config, runs, console, signals, memory, began, resume):
        seen.extend((config.name, runs, resume))
        return "summary"

    monkeypatch.setattr(launching, "launch", launch)
    assert llmi.train(SimpleNamespace(name="first"), str(tmp_path), resume=True) == "summary"  # type: ignore[arg-type]
    assert seen == ["first", tmp_path, True]
