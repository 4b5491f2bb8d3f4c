"""Evaluations from outside the workers: submit a benchmark, see how far it is, bring back what was lost.

Invariants: everything is checked before anything is written or posted; submitting again posts only what has
no complete result and is neither queued nor running; an item that ended without a result gets one that says
why; the batch's folder is the truth, Redis only knows what is under way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import redis
from pydantic import ValidationError

from coordinator.config.errors import explain
from coordinator.config.paths import placed
from coordinator.config.settings import ServiceConfig, load_services
from coordinator.state.claim import published
from evaluation.authors import registry as author
from evaluation.batch.batch import Batch, Manifest
from evaluation.batch.results import ItemResult, failures
from evaluation.formats.benchmark import Benchmark, Item, fingerprint, load
from evaluation.payloads import EvaluatePayload, judge_name
from evaluation.rubric import grade as rubric
from evaluation.settings import AuthorSettings
from policy.data.checked_images import Progress
from rewards import settings as rewards
from rewards.settings import JudgeSettings, RewardSettings
from workers.broker.registry import read_workers
from workers.client import blocking as queue
from workers.client import probe as queue_probe
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.messages import Failure, Request
from workers.settings import REDIS_ENV, QueueSettings
from workers.storage.blobs import BlobStore
from workers.storage.listing import BlobListing

KIND = "evaluate"
QUEUE_S = 7 * 86_400.0  # how long an item may wait for its turn
ROOM_S = 1.0  # between looks at a queue that is full
Say = Callable[[str], None]


@dataclass(frozen=True)
class Status:
    """Counts. Items are `complete`, `incomplete` (something is missing; submit again), `queued`, `running`
    or `lost` (in none of these places; posted again). Verdicts are `judged` of `criteria`; `refused`
    of these count 0, by the evaluated model's own fault; `failures` go by cause.
    """

    name: str
    items: int
    complete: int
    incomplete: int
    queued: int
    running: int
    lost: int
    judged: int
    refused: int
    criteria: int
    failures: dict[str, int]

    @property
    def under_way(self) -> bool:
        return bool(self.queued or self.running or self.lost)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Evaluation:
    """One batch and its queue. Raises `ConfigError` when there is none, `InfrastructureFault` when Redis is
    away.
    """

    def __init__(self, batch: Batch):
        self.batch = batch
        self.manifest = batch.manifest()
        self.results: dict[str, ItemResult] = {}
        self._absent_since: dict[str, float] = {}
        self._under_way: set[str] = set()  # requests that were queued or running when last heard of

    def look(self) -> Status:
        """How far it is. Posts again what has been in no place for a whole lease."""
        with _asking(self.manifest.queue) as client:
            places = self._places(client)
            lost = [item_id for item_id, place in places.items() if place == "lost"]
            now = time.monotonic()
            self._absent_since = {item_id: self._absent_since.get(item_id, now) for item_id in lost}
            overdue = [i for i in lost if now - self._absent_since[i] >= self.manifest.queue.lease_s]
            queue.post(client, [self._request(item_id) for item_id in overdue], self._may_wait)
        counted = [list(places.values()).count(place) for place in ("queued", "running", "lost")]
        results = self.results.values()
        complete = sum(result.complete for result in results)
        return Status(
            name=self.manifest.name,
            items=len(self.manifest.items),
            complete=complete,
            incomplete=len(self.manifest.items) - complete - sum(counted),
            queued=counted[0],
            running=counted[1],
            lost=counted[2],
            judged=sum(len(result.points) for result in results),
            refused=sum(result.refused for result in results),
            criteria=self.manifest.criteria,
            failures=failures(results),
        )

    def patient_look(self, say: Say) -> Status:
        """As `look`; what seems lost is looked for again after a lease, since it may be on its way to a
        worker.
        """
        status = self.look()
        if status.lost:
            wait_s = self.manifest.queue.lease_s
            say(f"{status.lost} items are in no queue and with no worker; looking again in {wait_s:.0f} s")
            time.sleep(wait_s)
            status = self.look()
        return status

    def post(self, item_ids: list[str], say: Say) -> list[str]:
        """Post these items' next round, unless it is under way; waits while the queue is full. Returns the
        ids that were posted now.
        """
        posted: set[str] = set()
        absent = {self._id(item_id): item_id for item_id in item_ids}
        told = False
        while absent:
            with _asking(self.manifest.queue) as client:
                found = queue.post(client, [self._request(one) for one in absent.values()], self._may_wait)
            posted |= {absent[one] for one, state in found.items() if state == "posted"}
            self._under_way |= {one for one, state in found.items() if state != "absent"}
            absent = {one: absent[one] for one, state in found.items() if state == "absent"}
            if absent and not told:
                say(
                    f"the queue {KIND} holds {self._may_wait} requests, as many as it may "
                    f"(queue.max_waiting); {len(absent)} items wait for room; what is posted stays, and the "
                    "same command goes on if this one is stopped"
                )
                told = True
            if absent:
                time.sleep(ROOM_S)
        return [item_id for item_id in item_ids if item_id in posted]

    @property
    def _may_wait(self) -> int:
        return self.manifest.queue.max_waiting

    def _places(self, client: redis.Redis) -> dict[str, str]:
        """Where each item is that has no complete result. Reads the results first."""
        self.results = self.batch.results(self.results)
        open_ids = [item.item_id for item in self.manifest.items if not self.complete(item.item_id)]
        found = queue.states(client, KIND, [self._id(item_id) for item_id in open_ids])
        ended = [item_id for item_id in open_ids if found[self._id(item_id)] == "done"]
        self._collect(client, ended)
        places: dict[str, str] = {}
        for item_id in open_ids:
            if self.complete(item_id):
                continue
            if item_id in ended:
                places[item_id] = "incomplete"
                continue
            request_id = self._id(item_id)
            if found[request_id] != "absent":
                self._under_way.add(request_id)
                places[item_id] = found[request_id]
            else:  # on its way to a worker, it is in neither place for a moment
                done = item_id in self.results and request_id not in self._under_way
                places[item_id] = "incomplete" if done else "lost"
        return places

    def _collect(self, client: redis.Redis, ended: list[str]) -> None:
        """Results of items that ended since they were read; what left none behind gets one that says why."""
        outcomes = queue.outcomes(client, [self._id(item_id) for item_id in ended])
        for item_id in ended:
            outcome, round_ = outcomes.get(self._id(item_id)), self._round(item_id)
            there = self.batch.result(item_id)
            if there is None or there.round < round_:
                gone = Failure(cause=Cause.INTERNAL, detail="its result was removed")
                failure = outcome.result if outcome and isinstance(outcome.result, Failure) else gone
                blank = there or ItemResult(item_id=item_id, round=round_)
                there = blank.model_copy(
                    update={"round": round_, "failure": failure, "finished": time.time()}
                )
                self.batch.save_result(there)
            self.results[item_id] = there

    def complete(self, item_id: str) -> bool:
        """As of the last look."""
        return item_id in self.results and self.results[item_id].complete

    def _round(self, item_id: str) -> int:
        """The round that is under way or comes next."""
        return self.results[item_id].round + 1 if item_id in self.results else 0

    def _id(self, item_id: str) -> str:
        return self.manifest.request_id(item_id, self._round(item_id))

    def _request(self, item_id: str) -> Request:
        payload = EvaluatePayload(
            batch=self.batch.url,
            batch_id=self.manifest.batch_id,
            item_id=item_id,
            round=self._round(item_id),
        )
        return Request.make(
            KIND, payload, timeout_s=QUEUE_S, owner=self.manifest.name, request_id=self._id(item_id)
        )


class _asking:
    """A connection to the queue's Redis; its errors become `InfrastructureFault`."""

    def __init__(self, settings: QueueSettings):
        self._client = queue.connect(settings)

    def __enter__(self) -> redis.Redis:
        return self._client

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._client.close()
        if isinstance(error, redis.RedisError):
            raise InfrastructureFault(
                Cause.PROVIDER_DOWN,
                f"the queue's Redis does not answer ({type(error).__name__}); start it, or set {REDIS_ENV}; "
                "what was evaluated is safe, and the same command goes on",
            ) from error


def configuration(path: str) -> ServiceConfig:
    """The configuration named, images kept where the command was given; without one, what the workers have
    published in the Redis that LLMI_REDIS_URL names. Raises `ConfigError`.
    """
    config = load_services(path) if path else ServiceConfig()
    if not config.external_redis:
        raise ConfigError(f"no Redis is named: set {REDIS_ENV} or queue.redis_url; `llmi redis` starts one")
    try:
        raw = published(config.queue)
    except ConfigError:
        raise
    except (redis.RedisError, ValueError) as error:  # the message of the latter may hold a password
        raise ConfigError(
            f"{REDIS_ENV} or queue.redis_url: no Redis answers there ({type(error).__name__}); start it, or "
            "correct the address"
        ) from None
    if path:
        return placed(config)
    if raw is None:
        raise ConfigError("no worker has published its configuration in this Redis; name it with --config")
    try:
        known = {name: raw[name] for name in ServiceConfig.model_fields if name in raw}
        return ServiceConfig.model_validate(known)
    except ValidationError as error:
        why = explain(ServiceConfig, error, "the configuration published in this Redis")[0]
        raise ConfigError(f"{why}; install the same version of llmi, or give --config") from error


def submit(
    config: ServiceConfig,
    bench: Path,
    name: str,
    folder: str,
    limit: int | None,
    say: Say,
    progress: Progress | None = None,
) -> tuple[Evaluation, list[str]]:
    """Check, write the batch unless it is there, post what is to be done. Returns the ids posted now.
    `progress`: of the check of its images.

    Raises `ConfigError` before anything was written, `InfrastructureFault` when Redis goes away; calling it
    again then does the rest.
    """
    if problems := queue_probe.problems(config.queue):
        raise ConfigError("\n".join(problems))
    benchmark = check(config, bench, limit, progress)
    items = benchmark.store(BlobStore(config.blobs.url))
    batch = Batch(_absolute(f"{folder.rstrip('/')}/{name}"))
    there = batch.exists()
    if there:
        _same(batch, items, config, benchmark)
    else:
        batch.create(_manifest(config, name, benchmark, items))
    BlobListing(config.blobs.url).register_user(batch.url)
    evaluation = Evaluation(batch)
    if there:
        evaluation.patient_look(say)
    unfinished = [item.item_id for item in items if not evaluation.complete(item.item_id)]
    posted = evaluation.post(unfinished, say)
    for problem in unserved(evaluation.manifest):
        say(problem)
    return evaluation, posted


def check(
    config: ServiceConfig, bench: Path, limit: int | None, progress: Progress | None = None
) -> Benchmark:
    """The benchmark, once everything that submitting needs was found to be there. `progress`: of its images.
    Raises one `ConfigError` with all problems, one a line.
    """
    problems = author.check(config.author)
    benchmark: Benchmark | None = None
    try:
        benchmark = load(bench, limit)
        benchmark.check(progress)
    except ConfigError as error:
        problems.append(str(error))
    if benchmark is not None:
        if benchmark.kind == "rubric":
            problems += rubric.check(config.rubric)
        else:
            problems += rewards.check(config.judges)
        shown = [entry.where for entry in benchmark.entries if entry.images]
        if shown and blind(config.author):
            problems.append(
                f"author.model: {config.author.model} reads no images, and {shown[0]} has some; name a "
                "vision-language model, or a benchmark without images"
            )
    if problems or benchmark is None:
        raise ConfigError("\n".join(problems))
    return benchmark


def blind(settings: AuthorSettings) -> bool:
    """Whether a local model's folder says that it reads no images; of others that is not known."""
    file = Path(settings.model).expanduser() / "config.json"
    return (
        settings.provider == "local"
        and file.is_file()
        and "vision_config" not in file.read_text(encoding="utf-8")
    )


def unserved(manifest: Manifest) -> list[str]:
    """What no worker serves right now, of the queues that this evaluation surely needs."""
    needed = [KIND, "judge_rubric"] if manifest.kind == "rubric" else [KIND, "judge_text"]
    with _asking(manifest.queue):
        served = {name for worker in read_workers(manifest.queue.url) for name in worker.queues}
    return [
        f"no worker serves the queue {kind!r} yet; `ops/start_workers.sh --queues {kind}` starts one"
        for kind in needed
        if kind not in served
    ]


def _absolute(url: str) -> str:
    """Workers run elsewhere: a folder is named by its whole path."""
    return url if "://" in url else str(Path(url).absolute())


def _manifest(config: ServiceConfig, name: str, benchmark: Benchmark, items: tuple[Item, ...]) -> Manifest:
    return Manifest(
        name=name,
        created=time.time(),
        kind=benchmark.kind,
        benchmark=benchmark.name,
        sha256=fingerprint(items),
        items=items,
        author=config.author,
        rubric=config.rubric,
        reward=_reward(config, items),
        judges=config.judges,
        blobs=config.blobs,
        queue=config.queue,
    )


def _reward(config: ServiceConfig, items: tuple[Item, ...]) -> RewardSettings:
    """An author that is given images reads them, so its weights are those of training such a model."""
    sees = any(item.task.inputs for item in items)
    return config.reward.model_copy(update={"vl": config.reward.vl or sees})


def _judges(settings: JudgeSettings) -> str:
    return f"{settings.text.name} for text, {settings.image.name} for images"


def _same(batch: Batch, items: tuple[Item, ...], config: ServiceConfig, benchmark: Benchmark) -> None:
    """Raises `ConfigError` when the batch of this name evaluates something else."""
    manifest = batch.manifest()
    differs = {
        "other items (another benchmark, or another --limit)": manifest.sha256 != fingerprint(items),
        f"another author ({manifest.author.model})": manifest.author != config.author,
        f"another judge ({judge_name(manifest.rubric)})": benchmark.kind == "rubric"
        and judge_name(manifest.rubric) != judge_name(config.rubric),
        "another reward": benchmark.kind == "reward" and manifest.reward != _reward(config, items),
        f"other judges ({_judges(manifest.judges)})": benchmark.kind == "reward"
        and _judges(manifest.judges) != _judges(config.judges),
    }
    if found := [why for why, different in differs.items() if different]:
        raise ConfigError(
            f"{batch.url} has {' and '.join(found)}; choose another --name, or remove that folder"
        )
