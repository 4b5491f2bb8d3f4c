"""A small generated benchmark in LLMI-Bench's format, to try an evaluation without a download.

Invariants: the same seed gives the same files; its subjects are those of the test split, which the tiny
policy was not trained on; the criteria can be judged by rules, from words alone.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from llmi.demo.prompts.corpus import Prompt, prompts
from llmi.tools import Source

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
