"""Keys in a worker's environment reach their services, and nothing else: no log, message, outcome or file."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from conftest import StartWorker
from fake_services import FakeServices

from coordinator.redis_server import EmbeddedRedis
from policy.ledger_writer import LedgerWriter
from rewards.judges import TEXT_KIND
from rewards.judges.payloads import JudgeTextPayload, ShownText
from workers.client import QueueClient
from workers.messages import CodePayload, DiffusionPayload, Failure, Outcome, Request, SearchPayload
from workers.settings import REDIS_ENV, QueueSettings

KEYS = {
    "SERP_API_KEY": "planted-serp-58c1",
    "IMAGES_KEY": "planted-images-91fe",
    "JUDGE_KEY": "planted-judge-77ab",
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
    program = "from coordinator.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *command], capture_output=True, check=False, timeout=110
    )


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
    for path, key in (
        ("/search", KEYS["SERP_API_KEY"]),
        ("/v1/images/generations", KEYS["IMAGES_KEY"]),
        ("/v1/chat/completions", KEYS["JUDGE_KEY"]),
    ):
        services.script[path] = [
            (401, {}, {"error": {"message": ECHO.format(key)}}),
            (400, {}, ECHO.format(key)),
        ]
    worker(["search", TEXT_KIND], 2)
    worker(["diffusion"])
    worker(["code"])
    judged = JudgeTextPayload(question="Why?", parts=(ShownText(text="Because."),))
    asked = [
        *(Request.make("search", SearchPayload(query=f"a fox {n}"), timeout_s=60, seed=n) for n in range(2)),
        *(
            Request.make("diffusion", DiffusionPayload(prompt="a fox"), timeout_s=60, seed=n)
            for n in range(2)
        ),
        *(Request.make(TEXT_KIND, judged, timeout_s=60, seed=n) for n in range(2)),
        Request.make("code", CodePayload(code=SNOOP), timeout_s=60),
    ]
    run = tmp_path / "run"
    run.mkdir()
    ledger = LedgerWriter(run, "rollout")
    outcomes: list[Outcome] = []
    async with QueueClient(queue_settings, on_posted=ledger.posted, on_outcome=ledger.ended) as client:
        for request in asked:
            outcomes.append(await (await client.post(request)).outcome())
    ledger.close()
    assert all(isinstance(outcome.result, Failure) for outcome in outcomes), "all were refused"
    assert {seen.authorization for seen in services.seen} >= {
        f"Bearer {KEYS['IMAGES_KEY']}",
        f"Bearer {KEYS['JUDGE_KEY']}",
    }, "the services had their keys"
    commands = (["workers", "status", "--json"], ["doctor", "--config", str(config_file), "--json"])
    told = [await asyncio.to_thread(llmi, command) for command in commands]
    with redis.Redis.from_url(queue_settings.url) as raw:
        stored = everything_in(raw)
    places = {
        "Redis": stored,
        **{" ".join(command): end.stdout + end.stderr for command, end in zip(commands, told, strict=True)},
        **{str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()},
    }
    assert len(places) > 8, "logs, ledger, configuration, Redis' own files"
    for where, text in places.items():
        for planted in (*PLANTED, *(key[:12] for key in KEYS.values())):
            assert planted.encode() not in text, where
