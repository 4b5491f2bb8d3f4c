"""Keys in a worker's environment reach their services, and nothing else: no log, message, page or file."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import StartWorker
from fake_services import FakeServices
from metrics_pages import get, get_json

from coordinator.host.redis_server import EmbeddedRedis
from coordinator.watch.exporter import Exporter
from evaluation.batch.batch import Batch, Manifest
from evaluation.batch.results import CriterionResult, ItemResult, Missing
from evaluation.benchmark import Item, fingerprint
from evaluation.pages import document_page, evaluation_page, run_page
from evaluation.pages.samples import Pair, Sample
from evaluation.payloads import RUBRIC_KIND, RubricPayload
from evaluation.rubric.verdict import judgement
from evaluation.settings import AuthorSettings, RubricSettings
from policy.document import Document, ImagePart, Tag, Task
from policy.ledger.writer import LedgerWriter
from policy.scoring import Score
from rewards.judges import TEXT_KIND
from rewards.judges.parts import ShownText
from rewards.judges.payloads import JudgeTextPayload
from rewards.settings import JudgeSettings, RewardSettings
from workers.client.client import QueueClient
from workers.messages import CodePayload, DiffusionPayload, Failure, Outcome, Request, SearchPayload, Success
from workers.settings import REDIS_ENV, BlobSettings, MetricsSettings, QueueSettings
from workers.storage.blobs import BlobStore

Answer = tuple[int, dict[str, str], Any]

KEYS = {
    "SERP_API_KEY": "planted-serp-58c1",
    "IMAGES_KEY": "planted-images-91fe",
    "JUDGE_KEY": "planted-judge-77ab",
    "RUBRIC_KEY": "planted-rubric-b6d3",
    "OPENAI_API_KEY": "planted-openai-06d2",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-4e19",
}
PASSWORD = "planted-redis-c3b0"
PLANTED = (*KEYS.values(), PASSWORD)
SNOOP = """
import os, glob
found = [dict(os.environ)]
for path in glob.glob('/proc/*/environ'):
    try:
        found.append(open(path).read())
    except OSError:
        pass
raise RuntimeError(str(found))
"""
ECHO = "x" * 290 + " Incorrect API key provided: {}"  # so that it straddles the place where it is cut


@pytest.fixture
def services() -> Iterator[FakeServices]:
    with FakeServices() as running:
        yield running


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedRedis]:
    """A Redis with a password, which is in the environment, like every key."""
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    with EmbeddedRedis(tmp_path / "redis", password=PASSWORD) as server:
        monkeypatch.setenv(REDIS_ENV, f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0")
        yield server


def configure(config_file: Path, services: FakeServices) -> None:
    images = {
        "provider": "openai",
        "base_url": f"{services.url}/v1",
        "model": "m",
        "api_key_env": "IMAGES_KEY",
    }
    judge = {"provider": "openai", "base_url": f"{services.url}/v1", "model": "j", "api_key_env": "JUDGE_KEY"}
    document = json.loads(config_file.read_text())
    document["tools"] = {
        "search": {"provider": "serpapi", "base_url": services.url, "allow_private_addresses": True},
        "diffusion": {**images, "allow_private_addresses": True},
    }
    document["judges"] = {"text": judge}
    document["rubric"] = {**judge, "model": "r", "api_key_env": "RUBRIC_KEY"}
    document["queue"]["breaker"] = {"while_open": "mask"}
    config_file.write_text(json.dumps(document))


def everything_in(client: redis.Redis) -> bytes:
    """All keys and values."""
    readers = {
        b"string": lambda key: [client.get(key)],
        b"list": lambda key: client.lrange(key, 0, -1),
        b"hash": lambda key: [part for pair in client.hgetall(key).items() for part in pair],
        b"set": lambda key: list(client.smembers(key)),
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": lambda key: [str(client.xrange(key)).encode()],
    }
    parts = [part for key in client.keys("*") for part in (key, *readers[client.type(key)](key))]
    return b"\n".join(parts)


def llmi(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    program = "from coordinator.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *command], capture_output=True, check=False, timeout=110
    )


def echoes(key: str) -> list[Answer]:
    """Errors that repeat the key, as an object and as plain text."""
    return [(401, {}, {"error": {"message": ECHO.format(key)}}), (400, {}, ECHO.format(key))]


def script(services: FakeServices) -> None:
    """What each service answers, call by call: errors of every shape, and what looks like success."""
    serp, images, judge, rubric = (
        KEYS[name] for name in ("SERP_API_KEY", "IMAGES_KEY", "JUDGE_KEY", "RUBRIC_KEY")
    )
    found = {"title": f"a fox {serp}", "link": f"https://e.org/?k={serp}"}
    services.script["/search"] = [
        *echoes(serp),
        (200, {}, {"error": ECHO.format(serp)}),
        (200, {}, {"images_results": [{**found, "original": f"{services.url}/picture.png"}]}),
    ]
    refused = {"error": {"code": "moderation_blocked", "message": ECHO.format(images)}}
    services.script["/v1/images/generations"] = [
        *echoes(images),
        (400, {}, refused),
        (200, {}, {"data": [refused]}),
    ]

    def chat(key: str, content: str) -> Answer:
        choice = {"message": {"content": content}, "finish_reason": key}
        return 200, {}, {"model": f"m {key}", "choices": [choice]}

    services.script["/v1/chat/completions"] = [
        *echoes(judge),
        chat(judge, ECHO.format(judge)),
        chat(judge, json.dumps({judge: 1})),
        chat(judge, json.dumps({"text": 5, "image_tags": 5})),
        *echoes(rubric),
        chat(rubric, ECHO.format(rubric)),
        chat(rubric, json.dumps({"reason": f"It says {rubric}.", "score": 1})),
    ]


def requests() -> list[Request]:
    """As many of each kind as `script` has answers, and code that looks for keys."""
    text = JudgeTextPayload(question="Why?", parts=(ShownText(text="Because."),))
    criterion = RubricPayload(
        question="Why?", parts=(ShownText(text="Because."),), criterion="It says why.", judge="r"
    )
    asked = [
        *(("search", SearchPayload(query="a fox"), n) for n in range(4)),
        *(("diffusion", DiffusionPayload(prompt="a fox"), n) for n in range(4)),
        *((TEXT_KIND, text, n) for n in range(5)),
        *((RUBRIC_KIND, criterion, n) for n in range(4)),
        ("code", CodePayload(code=SNOOP), 0),
    ]
    return [Request.make(kind, payload, timeout_s=60, seed=seed) for kind, payload, seed in asked]


def write_pages(outcomes: list[Outcome], blobs: BlobStore, run: Path) -> Document:
    """Every page that shows outcomes: of the run, of one document, of an evaluation."""
    params = {"search": {"query": "a fox"}, "diffusion": {"prompt": "a fox"}, "code": {"code": "1"}}
    shown = [outcome for outcome in outcomes if outcome.kind in params]
    parts = tuple(
        ImagePart(
            index=index,
            tag=Tag.model_validate({"source": one.kind, "description": "d", "params": params[one.kind]}),
            raw="",
            outcome=one,
        )
        for index, one in enumerate(shown)
    )
    document = Document(rollout_id="d", task=Task(question="Why?"), parts=parts)
    judged = [one.result for one in outcomes if one.kind == TEXT_KIND]
    spoke = {"judges": [result.source for result in judged if isinstance(result, Success)]}
    masked = tuple(result for result in judged if isinstance(result, Failure))
    sample = Sample(document, 1, 0.5, spoke, masked_by=masked)
    run_page.write(run / "index.html", run_page.Page("run", "", [], [Pair(sample)]), blobs)
    document_page.write(run / "document.html", document, blobs)
    verdicts: dict[str, CriterionResult] = {
        f"r{number}": judgement(one) if one.ok else Missing(failure=one.result, attempts=1)  # type: ignore[arg-type]
        for number, one in enumerate((one for one in outcomes if one.kind == RUBRIC_KIND), start=1)
    }
    item = Item(item_id="0001", task=document.task, criteria=dict.fromkeys(verdicts, "It says why."))
    batch = Batch(str(run / "evaluation"))
    batch.create(
        Manifest(
            name="e",
            created=0.0,
            kind="rubric",
            benchmark="b",
            sha256=fingerprint((item,)),
            items=(item,),
            author=AuthorSettings(model="a"),
            rubric=RubricSettings(provider="openai", model="r", api_key_env="RUBRIC_KEY"),
            reward=RewardSettings(),
            judges=JudgeSettings(),
            blobs=BlobSettings(url=blobs.url),
            queue=QueueSettings(),
        )
    )
    batch.save_document("0001", document)
    batch.save_result(ItemResult(item_id="0001", round=0, document_id="d", verdicts=verdicts))
    evaluation_page.write(batch)
    return document


def served(queue: QueueSettings, run: Path) -> bytes:
    """All that the exporter and the processes that it lists tell Prometheus."""
    with Exporter(MetricsSettings()) as exporter:
        exporter.watch(queue, "run")
        exporter.write(run)
        listed = get_json(f"{exporter.url}/targets")
        addresses = [f"http://{target['targets'][0]}/metrics" for target in listed]
        return b"\n".join([json.dumps(listed).encode(), *(get(address) for address in addresses)])


async def test_planted_keys_are_nowhere(
    tmp_path: Path,
    guarded: EmbeddedRedis,
    config_file: Path,
    services: FakeServices,
    worker: StartWorker,
    queue_settings: QueueSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(REDIS_ENV, f"redis://:{PASSWORD}@127.0.0.1:{guarded.port}/0")
    configure(config_file, services)
    script(services)
    worker(["search", TEXT_KIND, RUBRIC_KIND], 2)
    worker(["diffusion"])
    worker(["code"])
    run = tmp_path / "run"
    run.mkdir()
    ledger = LedgerWriter(run, "rollout")
    outcomes: list[Outcome] = []
    async with QueueClient(
        queue_settings, on_posted=ledger.posted, on_outcome=ledger.request_ended
    ) as client:
        for request in requests():
            outcomes.append(await (await client.post(request)).outcome())
    document = write_pages(outcomes, BlobStore(str(tmp_path / "blobs")), run)
    ledger.scored(document, Score(reward=0.5), tokens=1)
    ledger.close()
    assert not any(services.script.values()), "every answer was given"
    assert sum(outcome.ok for outcome in outcomes) == 3
    assert {seen.authorization for seen in services.seen} >= {
        f"Bearer {KEYS[name]}" for name in ("IMAGES_KEY", "JUDGE_KEY", "RUBRIC_KEY")
    }, "the services had their keys"
    commands = (["workers", "status", "--json"], ["doctor", "--config", str(config_file), "--json"])
    received = [await asyncio.to_thread(llmi, command) for command in commands]
    with redis.Redis.from_url(queue_settings.url) as raw:
        stored = everything_in(raw)
    places = {
        "Redis": stored,
        "metrics": await asyncio.to_thread(served, queue_settings, run),
        **{
            " ".join(command): end.stdout + end.stderr
            for command, end in zip(commands, received, strict=True)
        },
        **{str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()},
    }
    assert len(places) > 15, "logs, ledger, pages, reports, configuration, Redis' own files"
    for where, text in places.items():
        for planted in (*PLANTED, *(key[:12] for key in KEYS.values())):
            assert planted.encode() not in text, where
