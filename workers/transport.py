"""kombu's Redis transport, which buries what is no message instead of ending the worker for it, and puts what
a worker gives back where it is taken next.

kombu 5.6 takes an entry off its list, and then reads it outside of any handler: bytes that are no JSON, or
JSON that is no envelope, raise through the event loop, and are lost; a body that is no task's raises there
too, and comes again. `_brpop_read` is kombu's own, but for the lines in the middle. It can go when kombu has
a handler for such messages:
`tests/integration/test_dead_letters.py::test_kombu_alone_ends_at_what_is_no_message`.

kombu puts a message that was rejected where those lie that were posted last. Invariants: what is not buried
is delivered as kombu delivers it; what comes back, for whatever reason, is taken before all that never left
its queue, since it was posted before.
"""

from __future__ import annotations

import base64
import binascii
import logging
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from kombu.utils.encoding import bytes_to_str
from pydantic import BaseModel, Field, ValidationError

from workers.dead_letters import MAX_BYTES, bury
from workers.settings import QueueSettings, section

logger = logging.getLogger(__name__)


class _Properties(BaseModel):
    delivery_tag: str = Field(min_length=1)
    delivery_info: dict[str, Any]
    body_encoding: str | None = None


class _Envelope(BaseModel):
    """What kombu reads of a message before anybody else does."""

    body: str
    headers: dict[str, Any]
    properties: _Properties
    content_type: str = Field(alias="content-type")
    content_encoding: str = Field(alias="content-encoding")


def problem(entry: bytes) -> str:
    """Why a list entry is no message; empty when it is one."""
    if len(entry) > MAX_BYTES:
        return f"{len(entry)} bytes, and a message has at most {MAX_BYTES}"
    try:
        envelope = _Envelope.model_validate_json(entry)
        if envelope.properties.body_encoding == "base64":
            base64.b64decode(envelope.body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return f"no message: {where + ': ' if where else ''}{first['msg']}"
    except (binascii.Error, ValueError) as error:
        return f"no message: body: {error}"
    return ""


class QoS(redis.QoS):
    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        super().restore_by_tag(tag, client, leftmost=False)  # BRPOP takes the rightmost

    def restore_unacked(self, client: Any = None) -> None:
        """The oldest last, so that it is taken first."""
        with self.channel.conn_or_acquire(client) as connected:
            for tag in reversed(self._delivered):
                self.restore_by_tag(tag, connected)
        self._delivered.clear()


class Channel(redis.Channel):
    QoS = QoS

    def _brpop_read(self, **options: Any) -> bool:
        try:
            try:
                found = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            if not found:
                raise Empty()
            name, entry = found
            queue = bytes_to_str(name).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            if why := problem(entry):
                self._bury(queue, why, entry)
            else:
                self._hand_over(redis.loads(bytes_to_str(entry)), queue, entry)
            return True
        finally:
            self._in_poll = None

    def _hand_over(self, message: dict[str, Any], queue: str, entry: bytes) -> None:
        try:
            self.connection._deliver(message, queue)
        except self.connection_errors:
            raise
        except Exception as error:  # whatever Celery trips over in a message must not end the worker
            logger.exception("what came by the queue %s could not be taken", queue)
            self._bury(queue, f"not taken: {type(error).__name__}: {error}", entry)
            self.basic_reject(message["properties"]["delivery_tag"], requeue=False)

    def _bury(self, queue: str, why: str, entry: bytes) -> None:
        logger.error("buried an entry of the queue %s: %s", queue, why)
        with self.conn_or_acquire() as client:
            bury(client, queue, why, entry, section("queue", QueueSettings).result_ttl_s)


class Transport(redis.Transport):
    Channel = Channel


def install() -> None:
    """Have kombu use it for Redis, by its own table of transports."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = "workers.transport:Transport"
