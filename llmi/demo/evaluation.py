"""`llmi evaluate demo`: build what is missing, start Redis and workers, evaluate a small benchmark on them.

The benchmark is generated, in LLMI-Bench's format.

Invariants: the evaluation is submitted, watched and reported as any other; what the command started is
stopped when it ends; the same name again continues where it stopped. The same seed gives the same
benchmark; its subjects are those of the test split, which the tiny policy was not trained on; its criteria
can be judged by rules, from words alone.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from coordinator.check import folders
from coordinator.config.files import SHIPPED
from coordinator.config.settings import ServiceConfig, load_services
from coordinator.console.terminal import Notify
from coordinator.host.signals import StopSignals
from coordinator.scale.fleet import Fleet
from coordinator.scale.own_workers import own_workers
from evaluation.batch import submission
from evaluation.batch.progress import Evaluation, Status
from evaluation.pages import evaluation_page
from llmi.demo.build import Parts, build, cache_folder
from llmi.demo.parts import SEED
from llmi.demo.prompts.corpus import Prompt, prompts
from llmi.tools import Source
from workers.errors import ConfigError

CONFIG = SHIPPED / "evaluate_demo.yaml"  # never a file of that name in the working directory
POLL_S = 1.0
TEXT_ITEMS, PICTURE_ITEMS = 4, 2
_WANTED: dict[Source, str] = {
    "search": "The pictures are photographs of {subject}.",
    "diffusion": "The pictures are paintings of {subject}.",
    "code": "The pictures are charts of {subject}.",
    "edit": "One picture shows {subject}, and one the same changed to {change}.",
}


def write_bench(folder: Path, seed: int = 1) -> Path:
    """Write `bench.json` and its input images into `folder`, made if absent; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for number, prompt in enumerate(_prompts(seed), start=1):
        item: dict[str, Any] = {"prompt": prompt.text}
        if prompt.image:
            name = f"given-{number}.png"
            (folder / name).write_bytes(prompt.image)
            item["images"] = [name]
        items.append({**item, **{f"r{n}": text for n, text in enumerate(_criteria(prompt), start=1)}})
    path = folder / "bench.json"
    path.write_text(json.dumps(items, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path


def _prompts(seed: int) -> list[Prompt]:
    """Prompts that require a picture, of every kind."""
    chosen: list[Prompt] = []
    for pictures, count in ((False, TEXT_ITEMS), (True, PICTURE_ITEMS)):
        wanting = (one for one in prompts(seed, "test", pictures=pictures) if one.image_num > 0)
        kinds: set[Source] = set()
        while len(chosen) < count + (TEXT_ITEMS if pictures else 0):
            prompt = next(itertools.islice(wanting, 1))
            if prompt.topic.kind not in kinds:
                kinds.add(prompt.topic.kind)
                chosen.append(prompt)
    return chosen


def _criteria(prompt: Prompt) -> list[str]:
    topic = prompt.topic
    wanted = _WANTED[topic.kind]
    if topic.kind == "edit" and topic.picture is not None:
        wanted = "A picture shows the given one of {subject}, changed to {change}."
    return [
        f"The text speaks of {topic.subject}.",
        wanted.format(subject=topic.subject, change=topic.change),
        f"Each picture shows {topic.subject} and nothing else.",
        f"The text says something about {topic.subject} that is not in the prompt.",
    ]


def demo(
    name: str,
    folder: Path,
    signals: StopSignals,
    console: Console,
    notify: Notify,
    show: Callable[[Status], None],
) -> tuple[str, dict[str, Any]]:
    """Evaluate the tiny vision-language policy. Returns the report's page and numbers.

    `console` shows what is built, `notify` what is started, `show` the progress of the evaluation.

    Raises `ConfigError`, `BuildFailed`, `InfrastructureFault` or `Stopped`.
    """
    parts = Parts(cache_folder(), "vl", SEED)
    home = (folder / name).absolute()
    if problems := folders.cache(parts.cache):
        raise ConfigError("\n".join(problems))
    policy = build(parts, console)
    bench = write_bench(parts.cache / "specimen-bench")
    config = configure(parts, policy, home)
    with own_workers(config, home, signals, notify) as fleet:
        evaluation, _ = submission.submit(config, bench, name, str(folder), None, notify)
        _wait(evaluation, fleet, show)
    page, _, numbers = evaluation_page.write(evaluation.batch)
    return page, numbers


def configure(parts: Parts, policy: Path, home: Path) -> ServiceConfig:
    """The shipped configuration with the built parts put in; images lie beside the results."""
    return load_services(
        CONFIG,
        {
            "author.model": str(policy),
            "tools.search.library": str(parts.library),
            "tools.diffusion.model": str(parts.image_model),
            "tools.edit.model": str(parts.image_model),
            "blobs.url": str(home / "blobs"),
        },
    )


def _wait(evaluation: Evaluation, fleet: Fleet, show: Callable[[Status], None]) -> None:
    while True:
        status = evaluation.poll()
        show(status)
        if not status.in_progress:
            return
        fleet.reconcile()
        time.sleep(POLL_S)
