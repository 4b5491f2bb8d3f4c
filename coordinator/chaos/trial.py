"""One trial from its start to its audit: Redis behind a proxy, a provider, workers, rollouts, the monkey.

Invariants: everything runs in one folder and ends with the trial; the audit begins when every fault is undone
and every rollout has ended; the environment's own Redis and judges have no say.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from coordinator.build import cache_folder
from coordinator.chaos.audit import Evidence, Rule, audit, images
from coordinator.chaos.crew import Crew
from coordinator.chaos.faults import Fault, timeline
from coordinator.chaos.load import Load, Sample
from coordinator.chaos.monkey import Monkey
from coordinator.chaos.provider import Provider
from coordinator.chaos.proxy import Proxy
from coordinator.config import ServiceConfig
from coordinator.redis_server import EmbeddedRedis
from policy.ledger import Ledger, read_ledger
from rewards.settings import IMAGE_URL_ENV, TEXT_URL_ENV, JudgeEndpoint, JudgeSettings
from workers import submit
from workers.blobs import BlobStore
from workers.depths import read_depths
from workers.errors import InfrastructureFault
from workers.outcomes import attempts_key
from workers.providers.library_build import build_library
from workers.settings import (
    REDIS_ENV,
    BlobSettings,
    ImageModelSettings,
    QueueSettings,
    SearchSettings,
    ToolSettings,
)

LEASE_S = 5.0
LOOK_S = 0.25
END_S = 600.0  # after the last request was posted; deadlines end every request before
SETTLE_S = 30.0  # for second runs of jobs whose outcome is known

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """At least `requests` are posted, for at least `seconds`, while at least `faults` begin."""

    requests: int = 2000
    workers: int = 4
    seconds: float = 0.0
    faults: int = 26
    seed: int = 1


@dataclass(frozen=True)
class Result:
    """`outcomes` by kind and by cause or success; `again`: requests that were started more than once, and
    how often in all; `unreferenced`: blobs that no outcome names.
    """

    wanted: Wanted
    seconds: float
    faults: dict[str, int]
    restarts: int
    requests: int
    rollouts: int
    trained: int
    outcomes: dict[str, dict[str, int]]
    again: int
    starts: int
    unreferenced: int
    rules: list[Rule]

    @property
    def kept(self) -> bool:
        return not any(rule.violations for rule in self.rules)


def config_of(folder: Path, port: int, provider: Provider) -> ServiceConfig:
    """What workers and rollouts of the trial read: real tools, images and judges by the provider. `port`:
    where Redis is reached.
    """
    made = ImageModelSettings(
        provider="openai", base_url=provider.url, model="chaos", size="64x64", allow_private_addresses=True
    )
    judge = JudgeEndpoint(provider="openai", base_url=provider.url, model="chaos")
    return ServiceConfig(
        name="chaos",
        queue=QueueSettings(redis_url=f"redis://127.0.0.1:{port}/0", lease_s=LEASE_S),
        blobs=BlobSettings(url=str(folder / "blobs")),
        tools=ToolSettings(
            search=SearchSettings(library=str(cache_folder() / "library")), diffusion=made, edit=made
        ),
        judges=JudgeSettings(text=judge, image=judge),
    )


async def run(wanted: Wanted, folder: Path, say: Say, tell: Callable[[int, int], None]) -> Result:
    """Run it in `folder`, which is empty. `tell(posted, in flight)` is called now and then.

    Raises `InfrastructureFault` when the workers do not start, `TimeoutError` when the rollouts do not end.
    """
    began = time.monotonic()
    logs = folder / "logs"
    provider = Provider(logs / "provider.log")
    with contextlib.ExitStack() as stack:
        stack.enter_context(apart())
        server = stack.enter_context(EmbeddedRedis(folder / "redis"))
        proxy = stack.enter_context(Proxy(server.port))
        stack.callback(provider.kill)
        await asyncio.to_thread(provider.start)
        say("drawing the image library")
        await asyncio.to_thread(build_library, cache_folder() / "library")
        config = config_of(folder, proxy.port, provider)
        config.save(folder)
        crew = Crew(folder / "config.json", logs, wanted.workers)
        stack.callback(crew.stop)
        say(f"starting {wanted.workers} workers")
        await asyncio.to_thread(crew.start)
        monkey = Monkey(crew, server, proxy, provider)
        batch: list[Sample] = []
        async with Load(config.queue, config.judges, folder, wanted.seed, batch.append) as load:
            await _rage(wanted, load, monkey, crew, say, tell)
        say("the audit")
        return await asyncio.to_thread(
            _result, wanted, folder, load, batch, monkey, crew, server, config, time.monotonic() - began
        )


async def _rage(
    wanted: Wanted,
    load: Load,
    monkey: Monkey,
    crew: Crew,
    say: Say,
    tell: Callable[[int, int], None],
) -> None:
    """Returns when all that was asked for has happened, is undone, and every rollout has ended."""
    began = time.monotonic()
    begun = 0

    def hear(fault: Fault) -> None:
        nonlocal begun
        begun += 1
        lasts = f" ({fault.lasts_s:.1f} s)" if fault.lasts_s else ""
        say(f"{time.monotonic() - began:6.1f} s  fault {begun}: {fault.kind}{lasts}")

    work = asyncio.create_task(load.run())
    rampage = asyncio.create_task(monkey.rampage(timeline(wanted.seed), hear))
    try:
        while not work.done():
            enough = load.posted >= wanted.requests and begun >= wanted.faults
            if enough and time.monotonic() - began >= wanted.seconds:
                break
            if rampage.done():
                rampage.result()
            await asyncio.to_thread(crew.mend)
            tell(load.posted, load.in_flight)
            await asyncio.sleep(LOOK_S)
        load.finish()
        rampage.cancel()
        await asyncio.gather(rampage, return_exceptions=True)
        await monkey.rest()
        say("no more faults; waiting for what is under way")
        async with asyncio.timeout(END_S):
            while not work.done():
                await asyncio.to_thread(crew.mend)
                tell(load.posted, load.in_flight)
                await asyncio.wait([work], timeout=LOOK_S)
        await work
    finally:
        for task in (work, rampage):
            task.cancel()
        await asyncio.gather(work, rampage, return_exceptions=True)
        await monkey.rest()


def _result(
    wanted: Wanted,
    folder: Path,
    load: Load,
    batch: list[Sample],
    monkey: Monkey,
    crew: Crew,
    server: EmbeddedRedis,
    config: ServiceConfig,
    seconds: float,
) -> Result:
    left = _settled(server.url, crew)
    ledger = read_ledger(folder)
    ids = list(ledger.requests)
    with submit.connect(QueueSettings(redis_url=server.url)) as client:
        stored = submit.outcomes(client, ids)
        starts = _starts(client, ids)
    store = BlobStore(config.blobs.url)
    evidence = Evidence(ledger, batch, stored, starts, _broken(ledger, store), left)
    referenced = {ref.sha256 for record in ledger.requests.values() for ref in images(record)}
    there = {path.name for path in (folder / "blobs").glob("*/*") if "." not in path.name}
    return Result(
        wanted=wanted,
        seconds=seconds,
        faults={str(kind): count for kind, count in sorted(monkey.done.items())},
        restarts=crew.restarts,
        requests=len(ids),
        rollouts=load.rollouts,
        trained=len(batch),
        outcomes=_outcomes(ledger),
        again=sum(count > 1 for count in starts.values()),
        starts=sum(starts.values()),
        unreferenced=len(there - referenced),
        rules=audit(evidence),
    )


def _settled(url: str, crew: Crew) -> dict[str, int]:
    """What is queued or held once second runs have ended; at most `SETTLE_S` are waited for."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        crew.mend()
        left = {name: depth.waiting + depth.running for name, depth in read_depths(url).items()}
        if not any(left.values()) or time.monotonic() > deadline:
            return left
        time.sleep(LOOK_S)


def _starts(client: redis.Redis, ids: list[str]) -> dict[str, int]:
    """How often each was begun."""
    pipeline: Any = client.pipeline(transaction=False)
    for request_id in ids:
        pipeline.llen(attempts_key(request_id))
    return dict(zip(ids, pipeline.execute(), strict=True))


def _broken(ledger: Ledger, store: BlobStore) -> set[str]:
    broken = set()
    for record in ledger.requests.values():
        for ref in images(record):
            try:
                store.get(ref)
            except InfrastructureFault:
                broken.add(ref.sha256)
    return broken


def _outcomes(ledger: Ledger) -> dict[str, dict[str, int]]:
    by_kind: dict[str, Counter[str]] = {}
    for record in ledger.requests.values():
        result: Any = record.outcome.result if record.outcome else None
        how = "none" if result is None else str(getattr(result, "cause", "success"))
        by_kind.setdefault(record.request.kind, Counter())[how] += 1
    return {kind: dict(sorted(counts.items())) for kind, counts in sorted(by_kind.items())}


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Without the variables that would lead workers elsewhere."""
    before = {name: os.environ.pop(name, None) for name in (REDIS_ENV, TEXT_URL_ENV, IMAGE_URL_ENV)}
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
