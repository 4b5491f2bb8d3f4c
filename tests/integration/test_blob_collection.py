"""`llmi blobs`: blobs that any user references stay; old ones without a reference are removed."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import StartWorker
from PIL import Image
from queue_requests import Notes, request_for
from raw_queue import queue_up

from coordinator.blobs.collector import collect
from coordinator.watch.summary import SUMMARY
from evaluation.batch.results import ItemResult
from policy.document import Document, Task
from policy.ledger.writer import LedgerWriter
from workers.broker.outcomes import commit
from workers.client.client import QueueClient
from workers.errors import ConfigError, InfrastructureFault
from workers.messages import BlobRef, EditPayload, Outcome, Request, Success
from workers.settings import REDIS_ENV, QueueSettings
from workers.storage.blobs import BlobStore
from workers.storage.listing import BlobListing

DAY_S = 86_400.0
NOWHERE = "redis://127.0.0.1:1/0"


class Shelf:
    """A store, and pictures in it that are two days old."""

    def __init__(self, url: str):
        self.url, self.store = url, BlobStore(url)
        self._made = 0

    def path(self, ref: BlobRef) -> Path:
        return Path(self.store.location(ref.sha256))

    def old(self) -> BlobRef:
        ref = self.young()
        self.age(self.path(ref))
        return ref

    def young(self) -> BlobRef:
        self._made += 1
        out = io.BytesIO()
        Image.new("RGB", (9, self._made), "teal").save(out, "PNG")
        return self.store.put(out.getvalue())

    @staticmethod
    def age(path: Path) -> None:
        then = time.time() - 2 * DAY_S
        os.utime(path, (then, then))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(str(tmp_path / "shared"))


def run_in(folder: Path, shelf: Shelf, redis_url: str, *named: BlobRef, ended: bool = False) -> str:
    """A run whose ledger names some pictures."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"name": folder.name, "blobs": {"url": shelf.url}}))
    (folder / "endpoints.json").write_text(json.dumps({"redis": redis_url}))
    if ended:
        (folder / SUMMARY).write_text("{}")
    ledger = LedgerWriter(folder, "rollout")
    ledger.started("g_0", Task(question="q", inputs=named))
    ledger.close()
    BlobListing(shelf.url).register_user(str(folder))
    return str(folder)


def edit_of(ref: BlobRef) -> Request:
    return Request.make("edit", EditPayload(prompt="p", image=ref), timeout_s=60)


@pytest.fixture(autouse=True)
def _no_redis_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REDIS_ENV, raising=False)


async def test_referenced_blobs_stay_and_the_rest_is_removed(
    tmp_path: Path,
    shelf: Shelf,
    queue_settings: QueueSettings,
    start_worker: StartWorker,
    client: QueueClient,
) -> None:
    in_ledger, queued, running, made, unnamed = (shelf.old() for _ in range(5))
    young = shelf.young()
    run = run_in(tmp_path / "run", shelf, queue_settings.url, in_ledger)
    halves = [shelf.path(in_ledger).with_suffix(f".{sign}.part") for sign in "ab"]
    for half in halves:
        half.write_bytes(b"half")
    shelf.age(halves[0])
    outcome = Outcome(request_id="r", kind="edit", result=Success(images=(made,)))
    with redis.Redis.from_url(queue_settings.url) as raw:
        queue_up(raw, edit_of(queued))
        commit(raw, outcome, "", 60)
    start_worker()
    notes = Notes(tmp_path / running.sha256)  # so that the request names the picture
    await client.post(request_for(notes.order(seconds=60.0)))
    await notes.started()
    done = collect([run], keep_s=DAY_S)
    assert (done.named, done.young, done.garbage, done.removed) == (4, 2, 2, 2)
    left = [ref for ref in (in_ledger, queued, running, made, young, unnamed) if shelf.path(ref).exists()]
    assert left == [in_ledger, queued, running, made, young]
    assert [half.exists() for half in halves] == [False, True]


def test_nothing_is_removed_while_the_redis_of_a_live_run_is_down(tmp_path: Path, shelf: Shelf) -> None:
    unnamed = shelf.old()
    run = run_in(tmp_path / "run", shelf, NOWHERE)
    with pytest.raises(InfrastructureFault, match="has not ended"):
        collect([run], keep_s=DAY_S)
    assert shelf.path(unnamed).exists()
    (Path(run) / SUMMARY).write_text("{}")
    assert collect([run], keep_s=DAY_S).removed == 1


def test_the_blobs_of_other_users_stay_until_they_are_forgotten(tmp_path: Path, shelf: Shelf) -> None:
    own, others = shelf.old(), shelf.old()
    mine = run_in(tmp_path / "mine", shelf, NOWHERE, own, ended=True)
    other = run_in(tmp_path / "other", shelf, NOWHERE, others, ended=True)
    assert collect([mine], keep_s=DAY_S).garbage == 0
    Path(other).rename(tmp_path / "away")
    with pytest.raises(ConfigError, match=f"--forget {other}"):
        collect([mine], keep_s=DAY_S)
    assert shelf.path(others).exists()
    assert collect([mine], keep_s=DAY_S, forget=[other]).removed == 1
    assert [shelf.path(ref).exists() for ref in (own, others)] == [True, False]
    assert collect([mine], keep_s=DAY_S).users == (mine,)


def test_runs_with_different_stores_are_refused(tmp_path: Path, shelf: Shelf) -> None:
    runs = [
        run_in(tmp_path / "a", shelf, NOWHERE, ended=True),
        run_in(tmp_path / "b", Shelf(str(tmp_path / "own")), NOWHERE, ended=True),
    ]
    with pytest.raises(ConfigError, match="different image stores"):
        collect(runs, keep_s=DAY_S)


def test_blobs_that_an_evaluation_references_stay(tmp_path: Path, shelf: Shelf) -> None:
    kept, unnamed = shelf.old(), shelf.old()
    run = run_in(tmp_path / "run", shelf, NOWHERE, ended=True)
    batch = tmp_path / "evaluation"
    (batch / "documents").mkdir(parents=True)
    (batch / "batch.json").write_text("{}")
    (batch / "documents" / "1.json").write_text(json.dumps({"blob": kept.model_dump()}))
    BlobListing(shelf.url).register_user(str(batch))
    with pytest.raises(ConfigError, match="not written by llmi"):  # half an evaluation is none
        collect([run], keep_s=DAY_S)
    (batch / "batch.json").write_text(_manifest(shelf.url))
    assert collect([run], keep_s=DAY_S).removed == 1
    assert [shelf.path(ref).exists() for ref in (kept, unnamed)] == [True, False]


def evaluation_in(folder: Path, shelf: Shelf, *named: BlobRef) -> str:
    """An evaluation whose only document names some pictures, with the workers' configuration beside it."""
    (folder / "documents").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"name": folder.name, "blobs": {"url": shelf.url}}))
    (folder / "batch.json").write_text(_manifest(shelf.url))
    document = Document(rollout_id="d", task=Task(question="q", inputs=named), parts=())
    (folder / "documents" / "1.json").write_text(document.model_dump_json())
    (folder / "results").mkdir()
    result = ItemResult(item_id="1", round=0, document_id="d")
    (folder / "results" / "1.json").write_text(result.model_dump_json())
    BlobListing(shelf.url).register_user(str(folder))
    return str(folder)


def test_an_evaluation_with_a_configuration_is_not_taken_for_a_run(tmp_path: Path, shelf: Shelf) -> None:
    kept, unnamed = shelf.old(), shelf.old()
    evaluation = evaluation_in(tmp_path / "evaluation", shelf, kept)
    assert collect([evaluation], keep_s=DAY_S).removed == 1
    assert [shelf.path(ref).exists() for ref in (kept, unnamed)] == [True, False]


def test_a_folder_with_a_run_and_an_evaluation_keeps_the_blobs_of_both(tmp_path: Path, shelf: Shelf) -> None:
    of_run, of_evaluation = shelf.old(), shelf.old()
    both = run_in(tmp_path / "both", shelf, NOWHERE, of_run, ended=True)
    evaluation = Path(evaluation_in(tmp_path / "evaluation", shelf, of_evaluation))
    for name in ("batch.json", "documents", "results"):
        (evaluation / name).rename(Path(both) / name)
    assert collect([both], keep_s=DAY_S, forget=[str(evaluation)]).garbage == 0


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no ledger": lambda run: shutil.rmtree(run / "ledger"),
    "an empty ledger": lambda run: [file.unlink() for file in (run / "ledger").iterdir()],
    "a packed ledger": lambda run: [file.rename(f"{file}.gz") for file in (run / "ledger").iterdir()],
    "a ledger of zeros": lambda run: [
        file.write_bytes(b"\0" * 40 + b"\n") for file in (run / "ledger").iterdir()
    ],
    "a torn configuration": lambda run: (run / "config.json").write_text('{"name": '),
    "another run's configuration": lambda run: (run / "config.json").write_text("{}"),
    "no configuration": lambda run: (run / "config.json").unlink(),
    "no folder": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_run_removes_nothing(
    tmp_path: Path, shelf: Shelf, damage: Callable[[Path], object]
) -> None:
    kept = shelf.old()
    run = run_in(tmp_path / "run", shelf, NOWHERE, kept, ended=True)
    other = run_in(tmp_path / "other", shelf, NOWHERE, ended=True)
    damage(Path(run))
    for asked in (run, other):
        with pytest.raises(ConfigError):
            collect([asked], keep_s=DAY_S)
    assert shelf.path(kept).exists()


@pytest.mark.parametrize(
    ("name", "text"), [("documents/1.json", None), ("documents/1.json", '{"a": '), ("results/1.json", "{")]
)
def test_a_damaged_evaluation_removes_nothing(
    tmp_path: Path, shelf: Shelf, name: str, text: str | None
) -> None:
    kept = shelf.old()
    evaluation = Path(evaluation_in(tmp_path / "evaluation", shelf, kept))
    (evaluation / name).unlink() if text is None else (evaluation / name).write_text(text)
    with pytest.raises(ConfigError, match="nothing is removed"):
        collect([str(evaluation)], keep_s=DAY_S)
    assert shelf.path(kept).exists()


def test_a_live_run_without_its_addresses_removes_nothing(tmp_path: Path, shelf: Shelf) -> None:
    run = run_in(tmp_path / "run", shelf, NOWHERE, shelf.old())
    (Path(run) / "endpoints.json").unlink()
    with pytest.raises(ConfigError, match=r"endpoints\.json is missing"):
        collect([run], keep_s=DAY_S)


def test_a_damaged_list_of_users_removes_nothing(tmp_path: Path, shelf: Shelf) -> None:
    run = run_in(tmp_path / "run", shelf, NOWHERE, ended=True)
    for entry in Path(shelf.url, "users").iterdir():
        entry.write_text("{")
    with pytest.raises(ConfigError, match="nothing is removed"):
        collect([run], keep_s=DAY_S)


def _manifest(url: str) -> str:
    from evaluation.batch.batch import Manifest
    from evaluation.settings import AuthorSettings, RubricSettings
    from rewards.settings import JudgeSettings, RewardSettings
    from workers.settings import BlobSettings

    return Manifest(
        name="e",
        created=1.0,
        kind="reward",
        benchmark="b",
        sha256="0",
        items=(),
        author=AuthorSettings(),
        rubric=RubricSettings(),
        reward=RewardSettings(),
        judges=JudgeSettings(),
        blobs=BlobSettings(url=url),
        queue=QueueSettings(),
    ).model_dump_json()


def test_a_dry_run_lists_the_garbage_and_removes_nothing(tmp_path: Path, shelf: Shelf) -> None:
    unnamed = shelf.old()
    run_in(tmp_path / "run", shelf, NOWHERE, ended=True)
    command = [
        sys.executable,
        "-c",
        "from coordinator.cli.main import main; main()",
        "blobs",
        "run",
        "--dir",
        ".",
    ]

    def llmi(*options: str) -> Any:
        done = subprocess.run([*command, "--json", *options], cwd=tmp_path, capture_output=True, check=True)
        return json.loads(done.stdout)

    received = llmi("--dry-run")
    assert (received["garbage"], received["removed"], received["dry_run"]) == (1, 0, True)
    assert shelf.path(unnamed).exists()
    assert llmi("--older-than-hours", "72")["garbage"] == 0
    assert llmi()["removed"] == 1
    assert not shelf.path(unnamed).exists()
