"""Examples of supervised training: a chat that ends with the user's turn, and the document that answers it.

They are kept in a Parquet file in verl's format for conversations: the column `messages` holds the turns, the
last of which is the document. `reward` and `rollout_id` say where it is from; `of_file` does not read them.

Invariant: any problem with a file raises a short `ConfigError` with file, row and what to do.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy.data.files import head, misnamed, shown, some
from policy.document import InvalidPart
from policy.grammar.prompts import chat
from policy.grammar.tags import read
from workers.errors import ConfigError
from workers.storage.atomic import save

MESSAGES, IMAGES = "messages", ("images", "videos")
WHAT = "a Parquet file of conversations, with a column messages"
ROLES = ("system", "user", "assistant")
INVALID_TAG = "with an invalid tag"


@dataclass(frozen=True)
class Example:
    """`messages`: the chat up to the answer, with its system prompt. `text`: the answer.

    `reward` and `rollout_id`: of a run's document.
    """

    messages: tuple[dict[str, str], ...]
    text: str
    reward: float | None = None
    rollout_id: str = ""


@dataclass(frozen=True)
class Selection:
    """What is trained on. `left_out`: how many others there were, by reason."""

    examples: tuple[Example, ...]
    left_out: Counter[str]


def has_invalid_tag(text: str) -> bool:
    return any(isinstance(part, InvalidPart) for part in read(text, inputs=0))


def of_file(path: Path, system: str) -> Selection:
    """One example for each answer of the conversations in a file.

    `system`: replaces the system message of each; empty: the conversation's own stays.
    """
    found: list[Example] = []
    left_out: Counter[str] = Counter()
    for row, record in enumerate(_records(path)):
        turns = _turns(f"{path}: row {row}", record[MESSAGES])
        for at, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            if has_invalid_tag(turn["content"]):
                left_out[INVALID_TAG] += 1
                continue
            found.append(Example(tuple(chat(turns[:at], system)), turn["content"]))
    return Selection(tuple(found), left_out)


def write(path: Path, examples: Sequence[Example]) -> None:
    """Write the examples, each as one conversation."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            MESSAGES: [[*one.messages, {"role": "assistant", "content": one.text}] for one in examples],
            "reward": pa.array([one.reward for one in examples], pa.float64()),
            "rollout_id": [one.rollout_id for one in examples],
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    save(path, buffer.getvalue(), durable=True)


def load(path: Path) -> list[Example]:
    """Read what `write` has written."""
    return [
        Example(
            tuple(record[MESSAGES][:-1]),
            record[MESSAGES][-1]["content"],
            record["reward"],
            record["rollout_id"],
        )
        for record in _records(path, "reward", "rollout_id")
    ]


def _records(path: Path, *others: str) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not head(path, WHAT).startswith(b"PAR1"):
        raise ConfigError(f"{path}: not a Parquet file; name {WHAT}")
    try:
        with pq.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            if MESSAGES not in names:
                raise ConfigError(
                    f"{path}: column {MESSAGES} is missing (it has {some(names)}); {_hint(names)}"
                )
            known = [name for name in names if name in (MESSAGES, *IMAGES, *others)]
            records = file.read(columns=known).to_pylist()
    except ConfigError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        why = shown((str(error) or type(error).__name__).splitlines()[0])
        raise ConfigError(f"{path}: not a readable Parquet file ({why}); write it again") from error
    if pictured := [row for row, record in enumerate(records) if any(record.get(name) for name in IMAGES)]:
        raise ConfigError(
            f"{path}: row {pictured[0]}: has images, and llmi sft trains on text alone; leave such rows out "
            f"({len(pictured)})"
        )
    return records


def _hint(names: list[str]) -> str:
    if meant := misnamed(names, [MESSAGES]):
        return f"did you mean {shown(next(iter(meant)))}? Rename it"
    if "prompt" in names:
        return f"it has prompts without answers, for llmi train; name {WHAT}"
    return f"name {WHAT}"


def _turns(where: str, messages: object) -> list[dict[str, str]]:
    turns: list[dict[str, str]] = []
    for turn in messages if isinstance(messages, list) else []:
        role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
        if role not in ROLES or not isinstance(content, str):
            raise ConfigError(f"{where}: {MESSAGES}: every turn needs a role ({', '.join(ROLES)}) and a text")
        turns.append({"role": role, "content": content})
    if not turns or turns[-1]["role"] != "assistant":
        raise ConfigError(f"{where}: {MESSAGES}: must end with a message of the assistant")
    for before, turn in zip([{"role": ""}, *turns], turns, strict=False):
        if turn["role"] == "assistant" and (before["role"] != "user" or not turn["content"].strip()):
            raise ConfigError(
                f"{where}: {MESSAGES}: every message of the assistant needs a text, and a message of the "
                "user before it"
            )
    return turns
