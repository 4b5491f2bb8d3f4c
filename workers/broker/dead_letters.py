"""The list of dead letters: requests that are not tried again, each with the reason.

`llmi workers status` shows dead letters to an operator. The client gets an outcome, as for any other request.

Invariants: at most `MAX_ENTRIES` are kept of each reason, so that many of one push out none of another; each
detail and payload is cut to `MAX_CHARS`; the lists expire like outcomes do.
"""

from __future__ import annotations

import itertools
import reprlib
import time
from collections.abc import Sequence
from typing import Any, Literal, get_args

import redis
from pydantic import ValidationError

from workers.broker.claims import Attempt
from workers.messages import Message, Request, Text
from workers.redis_client import connect_redis

MAX_ENTRIES = 1_000  # of each reason
MAX_CHARS = 2_000
QUARANTINED = "quarantined: "  # start of the detail of the outcome of a poison message
MAX_SUMMARY_CHARS = 300
_SHORT = reprlib.Repr()
_SHORT.maxstring, _SHORT.maxother, _SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist = 80, 40, 3, 4, 3

Reason = Literal["invalid", "expired", "poison"]


def dead_letters_key(reason: Reason) -> str:
    """A list, newest first."""
    return f"llmi:dead-letters:{reason}"


class DeadLetter(Message):
    """One entry.

    `reason`: `invalid` (the message or its payload does not validate), `expired` (a worker received it after
    its start deadline) or `poison` (it ended its worker process `queue.max_attempts` times).
    `detail`: what was wrong. `since`: Unix seconds. `size`: bytes of the whole message. `payload`: its first
    characters; of a poison message a summary of its fields. `request_id`, `owner` and `attempts` (in order)
    are known of poison messages only.
    """

    reason: Reason
    detail: Text
    queue: Text
    since: float
    size: int
    payload: str
    request_id: str = ""
    owner: str = ""
    attempts: tuple[Attempt, ...] = ()


def payload_summary(request: Request) -> str:
    """The payload on one line: every field, long ones cut in the middle."""
    fields = (f"{name}={_SHORT.repr(value)}" for name, value in request.payload.items())
    return ", ".join(fields)[:MAX_SUMMARY_CHARS]


def dead_letter_message(
    client: redis.Redis, queue: str, detail: str, message: bytes, ttl_s: int, reason: Reason = "invalid"
) -> None:
    """Add a message that is not run. Raises `redis.RedisError`."""
    detail = detail[:MAX_CHARS]
    payload = message[:MAX_CHARS].decode(errors="replace")
    letter = DeadLetter(
        reason=reason, detail=detail, queue=queue, since=time.time(), size=len(message), payload=payload
    )
    _add(client, letter, ttl_s)


def dead_letter_poison(
    client: redis.Redis, request: Request, attempts: Sequence[Attempt], ttl_s: int
) -> None:
    """Add a request that ended its worker process in each of `attempts`. Raises `redis.RedisError`."""
    letter = DeadLetter(
        reason="poison",
        detail=f"ended its worker {len(attempts)} times",
        queue=request.kind,
        since=time.time(),
        size=len(request.model_dump_json()),
        payload=payload_summary(request),
        request_id=request.request_id,
        owner=request.owner,
        attempts=tuple(attempts),
    )
    _add(client, letter, ttl_s)


def read_dead_letters(url: str) -> list[DeadLetter]:
    """Every entry, newest first. Raises `redis.RedisError` when Redis does not answer."""
    with connect_redis(url) as client:
        lists: list[Any] = [client.lrange(dead_letters_key(one), 0, -1) for one in get_args(Reason)]
    letters: list[DeadLetter] = []
    poison: set[str] = set()
    for entry in itertools.chain.from_iterable(lists):
        try:
            letter = DeadLetter.model_validate_json(entry)
        except ValidationError:  # written by another version
            continue
        # A worker that died between adding the entry and storing the outcome left a second entry.
        if letter.reason == "poison":
            if letter.request_id in poison:
                continue
            poison.add(letter.request_id)
        letters.append(letter)
    return sorted(letters, key=lambda letter: -letter.since)


def _add(client: redis.Redis, letter: DeadLetter, ttl_s: int) -> None:
    pipeline: Any = client.pipeline()
    key = dead_letters_key(letter.reason)
    pipeline.lpush(key, letter.model_dump_json())
    pipeline.ltrim(key, 0, MAX_ENTRIES - 1)
    pipeline.expire(key, ttl_s)
    pipeline.execute()
