"""LLMI-Bench's format: a JSON array, or JSON lines.

An item is `{prompt, images?, r1, .., r10}`. `<image>` in the prompt marks the place of an image. Images are
paths relative to the file, data URIs or base64. An item has at least one criterion. Other keys are logged and
ignored.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from evaluation import json_items
from evaluation.benchmark import Entry, Format
from policy.data.dataset import PLACEHOLDER, match_placeholders
from policy.data.files import IMAGES, misnamed, shown, some
from policy.data.input_images import InputImage
from policy.document import Task
from workers.errors import ConfigError

logger = logging.getLogger(__name__)
CRITERIA = tuple(f"r{number}" for number in range(1, 11))
KEYS = ("prompt", "images", *CRITERIA)


class FORMAT(Format):
    """See the module."""

    kind = "rubric"
    files = "a .json or .jsonl file in LLMI-Bench's format"

    def matches(self, path: Path, head: bytes) -> bool:
        return path.suffix in (".json", ".jsonl")

    def read(self, path: Path) -> list[Entry]:
        found = json_items.read(path)
        names = dict.fromkeys(name for _, item in found if isinstance(item, dict) for name in item)
        entries = [_entry(path, where, number, item) for number, (where, item) in enumerate(found, start=1)]
        if ignored := [name for name in names if name not in KEYS]:
            logger.warning("%s: ignored keys: %s", path, some(ignored))
        return entries


def _entry(path: Path, where: str, number: int, item: object) -> Entry:
    if not isinstance(item, dict):
        raise ConfigError(f"{where}: must be an object with prompt and criteria r1 to r10")
    filled = [name for name in item if item[name] or name != "images"]
    for name, meant in misnamed(filled, KEYS[:2], {**IMAGES, "question": "prompt"}).items():
        raise ConfigError(f"{where}: {shown(name)}: did you mean {meant}? Rename the key, or leave it out")
    prompt = item.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ConfigError(f"{where}: prompt: must be a text")
    given = [] if item.get("images") is None else item["images"]
    if not isinstance(given, list) or not all(isinstance(one, str) and one for one in given):
        raise ConfigError(f"{where}: images: must be a list of paths, data URIs or base64 texts")
    match_placeholders(where, prompt.count(PLACEHOLDER), len(given))
    source = "interleaved_mm" if given else "interleaved"
    return Entry(
        item_id=f"{number:04d}",
        task=Task(question=prompt.strip(), split="test", data_source=source),
        criteria=_criteria(where, item),
        images=tuple(
            InputImage(one, path.parent, f"{where}: images[{index}]") for index, one in enumerate(given)
        ),
        where=where,
    )


def _criteria(where: str, item: Mapping[str, object]) -> dict[str, str]:
    for name in item:
        if name not in CRITERIA and re.fullmatch(r"\s*r[\s_-]?\d{1,9}\s*", name, re.IGNORECASE):
            raise ConfigError(f"{where}: {shown(name)}: criteria are named r1 to r10; rename it")
    found: dict[str, str] = {}
    for name in CRITERIA:
        text = item.get(name)
        if text is None:
            continue
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{where}: {name}: must be a text")
        found[name] = text.strip()
    if not found:
        raise ConfigError(f"{where}: r1: missing; an item needs at least one criterion, r1 to r10")
    return found
