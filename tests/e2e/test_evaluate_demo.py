"""`llmi evaluate demo` as a user runs it: real author, real tools, real queues, a report; and once more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]
LLMI = str(Path(sys.executable).with_name("llmi"))
LIMIT_S = 840.0  # building the tiny models takes minutes when the cache is cold


def evaluate(folder: Path) -> tuple[dict, str]:
    command = [LLMI, "evaluate", "demo", "--dir", str(folder), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout), ended.stderr


def test_every_item_is_written_and_judged_and_nothing_twice(tmp_path: Path) -> None:
    result, _ = evaluate(tmp_path)
    assert result["documents"] == {"written": 6, "of": 6}
    assert (result["score"]["judged"], result["score"]["of"]) == (24, 24)
    assert 0 <= result["score"]["value"] <= 10
    assert result["failures"] == {}
    page = Path(result["page"]).read_text()
    assert page.count("data:image/") > 2  # more than the two that were given
    documents = {path.name: path.read_text() for path in (tmp_path / "demo" / "documents").iterdir()}

    again, said = evaluate(tmp_path)
    assert again["score"] == result["score"]
    assert "6 of 6 items complete" in said
    after = {path.name: path.read_text() for path in (tmp_path / "demo" / "documents").iterdir()}
    assert after == documents
