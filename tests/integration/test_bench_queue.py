"""`llmi bench queue`, small: real workers, a backlog that keeps its length, and no process left."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from llmi.load.queue import trial, virtualenv
from llmi.load.queue.backlog import backlog
from llmi.load.queue.contestants import CELERY, OTHERS, Options
from workers.client.blocking import outcomes
from workers.errors import Cause, InfrastructureFault

LLMI = str(Path(sys.executable).with_name("llmi"))
OPTIONS = ["--requests", "20", "--in-flight", "4", "--singles", "5", "--rounds", "1", "--slots", "1"]
BACKLOGS = ["--waiting", "60", "--waiting", "30", "--seconds", "0.5"]


@pytest.mark.timeout(300)  # four starts of workers, maybe on a busy machine
def test_every_number_is_measured(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    command = [LLMI, "bench", "queue", *OPTIONS, *BACKLOGS]
    ended = subprocess.run(
        [*command, "--no-others", "--dir", str(folder), "--json"], capture_output=True, text=True, timeout=280
    )
    found = json.loads(ended.stdout)
    assert "error" not in found, found
    assert found | {"folder": ""} == json.loads((folder / "queue.json").read_text()) | {"folder": ""}
    assert ended.returncode == int(not all(target["met"] for target in found["targets"]))
    assert set(found["contestants"]) == {"llmi", "Celery", "two Redis lists"}
    for one in (*found["contestants"].values(), *found["backlogs"]):
        assert one["per_s"] > 0
        assert 0 < one["p50"] <= one["p99"]
    assert [one["waiting"] for one in found["backlogs"]] == [30, 60]
    for one in found["backlogs"]:
        assert one["kb_per_1000"] > 0.2
        assert sum(each["calls"] for each in one["commands"].values()) > 20
        assert not {"info", "config|resetstat"} & one["commands"].keys()
    assert (folder / "queue.png").read_bytes().startswith(b"\x89PNG")
    left = sorted(path.name for path in folder.iterdir())
    assert left == [
        "config.json",
        "logs",
        "queue.json",
        "queue.png",
    ]
    running = (" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))
    assert [words for words in running if str(folder) in words] == []


@pytest.mark.timeout(300)  # two starts of workers
def test_a_backlog_keeps_its_length(tmp_path: Path) -> None:
    options = Options(singles=5, slots=1, seconds=0.5)
    (tmp_path / trial.LOGS).mkdir()
    filled: list[int] = []
    with backlog(40, tmp_path, tmp_path / "data") as one:
        one.fill(filled.append)
        assert (filled[-1], one.posted, one.done) == (40, 40, 0)
        assert one.bytes > 40 * 200
        for _ in range(2):
            done = one.done
            one.measure(options)
            assert one.done > done
        ids = [f"bench-{number:08d}" for number in range(one.posted)]
        ended = outcomes(one.client, ids)
    assert len(ended) == one.done == sum(outcome.ok for outcome in ended.values())
    assert 0 < one.posted - len(ended) <= 40


def test_packages_that_do_not_install_leave_a_contestant_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMI_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    absent = replace(OTHERS[0], packages=("llmi-bench-absent==1.0",))
    with pytest.raises(InfrastructureFault, match=r"dramatiq is left out, .* install: ERROR") as fault:
        virtualenv.python_of(absent)
    assert fault.value.cause is Cause.PROVIDER_DOWN
    assert virtualenv.python_of(CELERY) == Path(sys.executable)
