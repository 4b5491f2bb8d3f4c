"""Submit a benchmark: check everything, write the batch, post its items.

Invariants:
- Everything is checked before anything is written or posted.
- Submitting again posts only items that have no complete result and are neither queued nor running.
- A name belongs to one evaluation: other items, another author or another judge under it are refused.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

from evaluation.authors import author as authors
from evaluation.batch.batch import Batch, Manifest
from evaluation.batch.progress import Evaluation, Notify, connection
from evaluation.benchmark import Benchmark, Item, fingerprint
from evaluation.formats import load
from evaluation.payloads import EVALUATE_KIND, RUBRIC_KIND, judge_name
from evaluation.rubric import judge as rubric
from evaluation.settings import AuthorSettings, RubricSettings
from policy.data.checked_images import Progress
from rewards import settings as rewards
from rewards.judges import TEXT_KIND
from rewards.settings import JudgeSettings, RewardSettings
from workers.broker.registry import read_workers
from workers.client import probe as queue_probe
from workers.errors import ConfigError
from workers.settings import BlobSettings, QueueSettings
from workers.storage.blobs import BlobStore
from workers.storage.listing import BlobListing


class EvaluationConfig(Protocol):
    """The sections of a configuration that an evaluation uses."""

    @property
    def author(self) -> AuthorSettings: ...
    @property
    def rubric(self) -> RubricSettings: ...
    @property
    def reward(self) -> RewardSettings: ...
    @property
    def judges(self) -> JudgeSettings: ...
    @property
    def blobs(self) -> BlobSettings: ...
    @property
    def queue(self) -> QueueSettings: ...


def submit(
    config: EvaluationConfig,
    bench: Path,
    name: str,
    folder: str,
    limit: int | None,
    notify: Notify,
    progress: Progress | None = None,
    format_name: str = "",
) -> tuple[Evaluation, list[str]]:
    """Check, write the batch `folder`/`name` unless it exists, post what is not complete.

    `bench`: the benchmark's file; `limit`: only its first items; `notify`: receives messages for the user;
    `progress`: of the check of its images; `format_name`: see `formats.load`.

    Returns the evaluation and the ids of the items posted now. Raises `ConfigError` before anything is
    written, `InfrastructureFault` when Redis stops answering; the same call again then does the rest.
    """
    if problems := queue_probe.problems(config.queue):
        raise ConfigError("\n".join(problems))
    benchmark = check(config, bench, limit, progress, format_name)
    items = benchmark.store(BlobStore(config.blobs.url))
    batch = Batch(_absolute(f"{folder.rstrip('/')}/{name}"))
    exists = batch.exists()
    if exists:
        _check_same(batch, items, config, benchmark)
    else:
        batch.create(_manifest(config, name, benchmark, items))
    BlobListing(config.blobs.url).register_user(batch.url)
    evaluation = Evaluation(batch)
    if exists:
        evaluation.poll_confirmed(notify)
    unfinished = [item.item_id for item in items if not evaluation.complete(item.item_id)]
    posted = evaluation.post(unfinished, notify)
    for problem in unserved(evaluation.manifest):
        notify(problem)
    return evaluation, posted


def check(
    config: EvaluationConfig,
    bench: Path,
    limit: int | None,
    progress: Progress | None = None,
    format_name: str = "",
) -> Benchmark:
    """Read the benchmark and check what submitting it needs.

    Raises one `ConfigError` with all problems, one a line.
    """
    problems = authors.check(config.author)
    benchmark: Benchmark | None = None
    try:
        benchmark = load(bench, limit, format_name)
        benchmark.check(progress)
    except ConfigError as error:
        problems.append(str(error))
    if benchmark is not None:
        if benchmark.kind == "rubric":
            problems += rubric.check(config.rubric)
        else:
            problems += rewards.check(config.judges, config.reward)
        with_images = [entry.where for entry in benchmark.entries if entry.images]
        if with_images and reads_no_images(config.author):
            problems.append(
                f"author.model: {config.author.model} reads no images, and {with_images[0]} has some; name a "
                "vision-language model, or a benchmark without images"
            )
    if problems or benchmark is None:
        raise ConfigError("\n".join(problems))
    return benchmark


def reads_no_images(settings: AuthorSettings) -> bool:
    """Whether a local model's config.json has no vision part. False where that is not known."""
    file = Path(settings.model).expanduser() / "config.json"
    return (
        settings.provider == "local"
        and file.is_file()
        and "vision_config" not in file.read_text(encoding="utf-8")
    )


def unserved(manifest: Manifest) -> list[str]:
    """One message for each queue that this evaluation needs and no worker serves now."""
    needed = [EVALUATE_KIND, RUBRIC_KIND if manifest.kind == "rubric" else TEXT_KIND]
    with connection(manifest.queue):
        served = {name for worker in read_workers(manifest.queue.url) for name in worker.queues}
    return [
        f"no worker serves the queue {kind!r} yet; `ops/start_workers.sh --queues {kind}` starts one"
        for kind in needed
        if kind not in served
    ]


def _absolute(url: str) -> str:
    """A URL as it is, a folder as an absolute path: workers run in another working directory."""
    return url if "://" in url else str(Path(url).absolute())


def _manifest(config: EvaluationConfig, name: str, benchmark: Benchmark, items: tuple[Item, ...]) -> Manifest:
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


def _reward(config: EvaluationConfig, items: tuple[Item, ...]) -> RewardSettings:
    """The reward's settings; `vl` where items have images, since the author then reads images."""
    sees = any(item.task.inputs for item in items)
    return config.reward.model_copy(update={"vl": config.reward.vl or sees})


def _judges(settings: JudgeSettings) -> str:
    return f"{settings.text.name} for text, {settings.image.name} for images"


def _check_same(
    batch: Batch, items: tuple[Item, ...], config: EvaluationConfig, benchmark: Benchmark
) -> None:
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
