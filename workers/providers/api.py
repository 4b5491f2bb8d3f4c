"""One call to a provider's API: JSON back, or a typed failure.

Invariants: never past the request's deadline; 401 and 403 are AUTH, 429 is QUOTA, 5xx and network trouble
PROVIDER_DOWN, anything unreadable BAD_ANSWER; only QUOTA and PROVIDER_DOWN are tried again, a few times,
jittered, and no earlier than the provider's own Retry-After; a key never shows in a detail.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import tenacity

from workers.errors import Cause, InfrastructureFault, JobError
from workers.providers.http import Resolver, read_bounded
from workers.providers.keys import blanked

MAX_ANSWER_BYTES = 96 * 2**20
SAID = 300  # characters of a provider's own words in a detail
MAX_TRIES = 4
_JITTER = tenacity.wait_random_exponential(multiplier=0.5, max=8)

Answer = dict[str, Any]


class PassingFault(InfrastructureFault):
    """A failure that may be gone in a moment: 408, 429, 5xx, network trouble."""


@dataclass(frozen=True)
class Call:
    """One HTTP call. `form` is made anew for each try (a form can be sent once). `key` is blanked out of
    details.

    `refusal` may turn an error answer into a more telling failure (call, status, answer) -> failure or None.
    """

    provider: str
    method: str
    url: str
    deadline: float
    try_timeout_s: float = 300.0
    params: Mapping[str, str] | None = None
    body: Mapping[str, Any] | None = None
    form: Callable[[], aiohttp.FormData] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    refusal: Callable[[Call, int, Answer], JobError | None] | None = None

    def said(self, words: object) -> str:
        """The provider's own words as a detail shows them, "" for what is no text: some repeat the key that
        they were sent.
        """
        if not isinstance(words, str):
            return ""
        return blanked(words, self.key)[:SAID]  # in this order, or half a key is left at the end


def parsed(text: str | bytes) -> Any:
    """JSON that came from outside. Raises `ValueError`, also where it is nested too deep to be read."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


async def ask(call: Call) -> Answer:
    """The answer's JSON object. Raises `InfrastructureFault`, or what `call.refusal` makes of an error
    answer.
    """
    async with session() as connections:
        return await retrying(call.deadline)(_try_once, connections, call)


def session() -> aiohttp.ClientSession:
    """Connections to addresses of the user's own configuration, which may be private."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Resolver(allow_private=True)))


def retrying(deadline: float) -> tenacity.AsyncRetrying:
    """Tries again after a `PassingFault`, as the module's docstring says. `deadline` in Unix seconds."""
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(PassingFault),
        wait=_wait,
        stop=lambda state: state.attempt_number >= MAX_TRIES or _too_late(state, deadline),
        reraise=True,
    )


async def _try_once(connections: aiohttp.ClientSession, call: Call) -> Answer:
    left = call.deadline - time.time()
    try:
        async with asyncio.timeout(min(left, call.try_timeout_s)):
            async with connections.request(
                call.method,
                call.url,
                params=call.params,
                json=call.body,
                data=call.form() if call.form else None,
                headers=call.headers,
                allow_redirects=False,
            ) as response:
                body = await read_bounded(response, MAX_ANSWER_BYTES)
    except TimeoutError as error:
        cause = Cause.TIMEOUT if call.deadline <= time.time() else Cause.PROVIDER_DOWN
        raise PassingFault(cause, "no answer in time", provider=call.provider) from error
    except aiohttp.InvalidURL as error:
        raise InfrastructureFault(
            Cause.BAD_ANSWER, "its base URL is not a URL", provider=call.provider
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        # The name of the error only: some of these carry the URL, and SerpAPI's key travels in it.
        detail = f"cannot be reached: {type(error).__name__}"
        raise PassingFault(Cause.PROVIDER_DOWN, detail, provider=call.provider) from None
    return _judge(call, response.status, response.headers, body)


def _judge(call: Call, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    if not 200 <= status < 300:
        raise failure(call, status, headers, body)
    try:
        answer = parsed(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise InfrastructureFault(Cause.BAD_ANSWER, "the answer is not a JSON object", provider=call.provider)
    return answer


def failure(call: Call, status: int, headers: Mapping[str, str], body: bytes) -> JobError:
    """What an answer with an error status means."""
    try:
        answer = parsed(body)
    except ValueError:
        answer = None
    if call.refusal and isinstance(answer, dict) and (refusal := call.refusal(call, status, answer)):
        return refusal
    detail = f"HTTP {status}: {_message(call, answer, body)}"
    wish = _retry_after(headers.get("Retry-After"))
    fault = PassingFault if status in (408, 429) or status >= 500 else InfrastructureFault
    return fault(_cause(status), detail, provider=call.provider, retry_after_s=wish)


def _cause(status: int) -> Cause:
    if status in (401, 403):
        return Cause.AUTH
    if status in (402, 429):
        return Cause.QUOTA
    return Cause.PROVIDER_DOWN if status >= 500 or status == 408 else Cause.BAD_ANSWER


def _message(call: Call, answer: object, body: bytes) -> str:
    """The provider's own words: `error` as a string or as an object with `message`, else the body's
    beginning.
    """
    error = answer.get("error") if isinstance(answer, dict) else None
    text = error.get("message") if isinstance(error, dict) else error
    return call.said(text) or call.said(body.decode(errors="replace"))


def _retry_after(value: str | None) -> float | None:
    """Seconds, from either form of the header: a number or a date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _wish(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return (error.retry_after_s or 0.0) if isinstance(error, JobError) else 0.0


def _wait(state: tenacity.RetryCallState) -> float:
    return max(_JITTER(state), _wish(state))


def _too_late(state: tenacity.RetryCallState, deadline: float) -> bool:
    """Whether the next try would begin past the deadline (tenacity fills in `upcoming_sleep` first)."""
    return time.time() + state.upcoming_sleep >= deadline
