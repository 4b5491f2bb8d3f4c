"""Read prompts from parquet files in the LLM-I schema (the published ones and your own) to rows of one type.

Columns: `prompt` (a string, or a chat as a list of {role, content}), `images` (optional; its shapes are those
of `policy.data.input_images`), `data_source` in {interleaved, interleaved_mm}, `extra_info.{image_num, tools,
question, split}`; other columns are ignored.

Invariants:
- anything that cannot be read raises a `ConfigError` with file, row and column, before the run starts;
- `<image>` is a placeholder only in a row with images, and then once per image;
- image bytes are read on demand.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from policy.data.files import shown, some
from policy.data.input_images import InputImage, of_cell
from policy.data.table import read_table, records
from policy.document import Task
from policy.grammar.prompts import chat
from policy.tools import tool_names
from workers.errors import ConfigError
from workers.messages import BlobRef

logger = logging.getLogger(__name__)

DATA_SOURCES = ("interleaved", "interleaved_mm")
PLACEHOLDER = "<image>"


@dataclass(frozen=True)
class Row:
    """One prompt.

    `messages`: {role, content}; with images, content is a list of {type: image} and {type: text}.
    """

    index: int
    messages: list[dict]
    question: str
    image_num: int
    tools: tuple[str, ...]
    split: str
    data_source: str
    images: tuple[InputImage, ...] = ()

    def chat(self, system: str) -> list[dict]:
        """The messages for a chat template, after the system prompt `system` unless it is empty."""
        return chat(self.messages, system)

    def task(self, inputs: Iterable[BlobRef] = ()) -> Task:
        """The task. `inputs`: references of the input images in the blob store."""
        return Task(
            question=self.question,
            image_num=self.image_num,
            tools=self.tools,
            split=self.split,
            data_source=self.data_source,
            inputs=tuple(inputs),
        )


def load_rows(path: str | Path) -> list[Row]:
    """Read all rows of a parquet file, in order. Raises `ConfigError`."""
    path = Path(path)
    table = read_table(path)
    images = table.column("images") if "images" in table.column_names else None
    rows = [
        _row(path, index, record, _images(path, index, images[index] if images is not None else None))
        for index, record in enumerate(records(path, table))
    ]
    unknown = sorted({tool for row in rows for tool in row.tools} - set(tool_names()))
    if unknown:
        logger.warning("%s: extra_info.tools: %s: no such tool; ignored", path, some(unknown))
        rows = [_without(row, unknown) for row in rows]
    return rows


def _row(path: Path, index: int, record: dict, images: tuple[InputImage, ...]) -> Row:
    where = f"{path}: row {index}"
    info = record["extra_info"]
    if not isinstance(info, dict):
        raise ConfigError(f"{where}: extra_info: must be a struct with image_num, tools, question and split")
    source = record["data_source"]
    if source not in DATA_SOURCES:
        raise ConfigError(
            f"{where}: data_source: {shown(repr(source))} is not one of {', '.join(DATA_SOURCES)}; correct it"
        )
    messages = _messages(where, record["prompt"], len(images), with_images=source == DATA_SOURCES[1])
    question = info.get("question")
    if question is None:
        question = _text_of(messages)
    if not isinstance(question, str) or not question.strip():
        raise ConfigError(f"{where}: extra_info.question: must be a text")
    split = info.get("split") or "train"
    if not isinstance(split, str):
        raise ConfigError(f"{where}: extra_info.split: must be a text such as train or test")
    return Row(
        index=index,
        messages=messages,
        question=question,
        image_num=_image_num(where, info.get("image_num")),
        tools=_tools(where, info.get("tools")),
        split=split,
        data_source=cast(str, source),
        images=images,
    )


def _images(path: Path, index: int, cell: Any) -> tuple[InputImage, ...]:
    return of_cell(cell, path.parent, f"{path}: row {index}")


def _messages(where: str, prompt: object, images: int, *, with_images: bool) -> list[dict]:
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list) or not prompt:
        raise ConfigError(f"{where}: prompt: must be a text or a chat of {{role, content}}")
    messages: list[dict] = []
    for turn in prompt:
        role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
        if role not in ("system", "user", "assistant") or not isinstance(content, str):
            raise ConfigError(
                f"{where}: prompt: every turn needs a role (system, user, assistant) and a text"
            )
        messages.append({"role": role, "content": content})
    if messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise ConfigError(f"{where}: prompt: must end with a message of the user")
    if images or with_images:
        user_text = "".join(turn["content"] for turn in messages if turn["role"] == "user")
        match_placeholders(where, user_text.count(PLACEHOLDER), images)
    return place_images(messages, images) if images else messages


def match_placeholders(where: str, found: int, images: int) -> None:
    """Raise `ConfigError` if a prompt has `<image>` placeholders, but not one per image.

    Without placeholders the images come first.
    """
    if found and found != images:
        raise ConfigError(
            f"{where}: prompt: has {found} {PLACEHOLDER} and there are {images} images; write one for each, "
            "or none to put the images first"
        )


def place_images(messages: list[dict], images: int) -> list[dict]:
    """Put images in place of their placeholders; images without one go first in the last user turn."""
    turns = [
        [piece for piece in re.split(f"({PLACEHOLDER})", message["content"]) if piece] for message in messages
    ]
    users = [turn for turn, message in zip(turns, messages, strict=True) if message["role"] == "user"]
    found = sum(piece == PLACEHOLDER for turn in users for piece in turn)
    left, placed = images, []
    for turn, message in zip(turns, messages, strict=True):
        content: list[dict] = []
        if turn is users[-1]:
            content = [{"type": "image"}] * max(0, images - found)
        for piece in turn:
            if piece == PLACEHOLDER and message["role"] == "user" and left > 0:
                left -= 1
                content.append({"type": "image"})
            elif content and content[-1]["type"] == "text":
                content[-1] = {"type": "text", "text": content[-1]["text"] + piece}
            else:
                content.append({"type": "text", "text": piece})
        placed.append({"role": message["role"], "content": content})
    return placed


def _text_of(messages: list[dict]) -> str:
    content = messages[-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(piece["text"] for piece in content if piece["type"] == "text").strip()


def _image_num(where: str, value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value.strip()):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < -1:
        raise ConfigError(
            f"{where}: extra_info.image_num: {shown(repr(value))} is not -1 (none), 0 (free), 99 (any) or a "
            "count"
        )
    return value


def _tools(where: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        value = re.split(r"[\s,;]+", value.strip("[]() ").replace("'", "").replace('"', ""))
    if not isinstance(value, list) or not all(isinstance(tool, str) for tool in value):
        raise ConfigError(
            f"{where}: extra_info.tools: must be a list of tool names ({', '.join(tool_names())})"
        )
    return tuple(dict.fromkeys(tool.strip().lower() for tool in value if tool.strip()))


def _without(row: Row, unknown: list[str]) -> Row:
    return replace(row, tools=tuple(tool for tool in row.tools if tool not in unknown))
