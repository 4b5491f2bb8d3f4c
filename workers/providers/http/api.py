"""One call to a provider's API: JSON back, or a typed failure.

Invariants:
- A call ends by the request's deadline.
- A refusal because of the content is the model's fault (`PROMPT_REFUSED`, see `refusals`). 401 and 403 are
  AUTH, 429 is QUOTA, 5xx and network errors are PROVIDER_DOWN, anything else is BAD_ANSWER.
- Only QUOTA and PROVIDER_DOWN are retried: a few times, with jitter, not before the provider's Retry-After.
- A key never appears in a detail.
- A 4xx for an unknown reason is counted, and each kind is logged once.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import tenacity

from workers.errors import Cause, InfrastructureFault, JobError, ModelFault
from workers.metrics import telemetry
from workers.providers.http import keys, proxies, refusals
from workers.providers.http.client import connections, proxy_of, read_bounded
from workers.providers.http.refusals import Meaning

logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 96 * 2**20
DETAIL_CHARS = 300  # of a provider's message in a detail
MAX_TRIES = 4
CLOCK_SKEW_S = 0.05  # seconds by which the loop's clock may be ahead of the deadline's
_JITTER = tenacity.wait_random_exponential(multiplier=0.5, max=8)

Answer = dict[str, Any]


class TransientFault(InfrastructureFault):
    """A failure that may be temporary, so the call is retried: 408, 429, 5xx, network errors."""


class TooLarge(ModelFault):
    """A service refused the request for its length, its number of images or its bytes."""


class Refused(InfrastructureFault):
    """A 4xx for an unknown reason."""


@dataclass(frozen=True)
class Call:
    """One HTTP call.

    try_timeout_s: limit of one attempt, in seconds.
    form: makes the form of one attempt, since a form can be sent once.
    key: removed from every detail.
    expects: the field without which an answer with status 200 is an error.
    only_content: the request holds only what the model wrote and nothing of the configuration, so that a 4xx
        that nothing else explains is a refusal of the content.
    model_text: the model's words in the request, which an answer may repeat.
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
    expects: str = ""
    only_content: bool = False
    model_text: str = ""

    def redacted(self, words: object) -> str:
        """The provider's message as a detail shows it, without the key; "" for what is not text."""
        if not isinstance(words, str):
            return ""
        return keys.redacted(words, self.key)[:DETAIL_CHARS]  # in this order, or a part of the key could stay


def parsed(text: str | bytes) -> Any:
    """JSON from outside. Raises `ValueError`, also for JSON that is nested too deep."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


async def send(call: Call) -> Answer:
    """The answer's JSON object. Raises `InfrastructureFault`, or `ModelFault(PROMPT_REFUSED)` for refused
    content.
    """
    return await retrying(call.deadline)(_attempt, await connections(), call)


def retrying(deadline: float) -> tenacity.AsyncRetrying:
    """Retries after a `TransientFault`, by the invariants of this module. `deadline`: Unix seconds."""
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(TransientFault),
        wait=_wait,
        stop=lambda state: state.attempt_number >= MAX_TRIES or _too_late(state, deadline),
        reraise=True,
    )


async def _attempt(session: aiohttp.ClientSession, call: Call) -> Answer:
    left = call.deadline - time.time()
    proxy = None
    try:
        async with asyncio.timeout(min(left, call.try_timeout_s)):
            proxy = await proxy_of(call.url)
            async with session.request(
                call.method,
                call.url,
                params=call.params,
                json=call.body,
                data=call.form() if call.form else None,
                headers=call.headers,
                proxy=proxy,
                allow_redirects=False,
            ) as response:
                body = await read_bounded(response, MAX_ANSWER_BYTES)
    except TimeoutError as error:
        cause = Cause.TIMEOUT if call.deadline - time.time() < CLOCK_SKEW_S else Cause.PROVIDER_DOWN
        raise TransientFault(cause, "no answer in time", provider=call.provider) from error
    except aiohttp.InvalidURL as error:
        raise InfrastructureFault(
            Cause.BAD_ANSWER, "its base URL is not a URL", provider=call.provider
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        # The name of the error only: some of these contain the URL, and with it SerpAPI's key.
        way = f" through the proxy {proxies.redacted(proxy)}" if proxy else ""
        detail = f"cannot be reached{way}: {type(error).__name__}"
        raise TransientFault(Cause.PROVIDER_DOWN, detail, provider=call.provider) from None
    return _checked(call, response.status, response.headers, body)


def _checked(call: Call, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    if not 200 <= status < 300:
        raise failure(call, status, headers, body)
    try:
        answer = parsed(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise InfrastructureFault(Cause.BAD_ANSWER, "the answer is not a JSON object", provider=call.provider)
    if call.expects and not answer.get(call.expects):
        raise refused(call, status, answer)
    return answer


def failure(call: Call, status: int, headers: Mapping[str, str], body: bytes) -> JobError:
    """The failure for an answer with an error status."""
    try:
        answer = parsed(body)
    except ValueError:
        answer = None
    delay_s = _retry_after(headers.get("Retry-After"))
    return refused(call, status, answer, body.decode(errors="replace"), delay_s)


def refused(
    call: Call, status: int, answer: object, body: str = "", retry_after_s: float | None = None
) -> JobError:
    """The failure for an answer that is an error. `body`: its text, where `answer` is not all of it."""
    words = call.redacted(refusals.read(answer).words) or call.redacted(body)
    meaning = refusals.meaning(status, answer, body, call.model_text)
    if call.only_content and (
        (meaning is Meaning.UNKNOWN and status >= 400)
        or (meaning is Meaning.FAILED and refusals.is_about_content(words))
    ):
        meaning = Meaning.CONTENT
    provider, detail = call.provider, f"HTTP {status}: {words}"
    match meaning:
        case Meaning.CONTENT:
            return ModelFault(Cause.PROMPT_REFUSED, words or f"HTTP {status}", provider=provider)
        case Meaning.TOO_LARGE:
            return TooLarge(Cause.PROMPT_REFUSED, f"too large: {words or detail}", provider=provider)
        case Meaning.KEY:
            return InfrastructureFault(Cause.AUTH, detail, provider=provider)
        case Meaning.QUOTA:
            fault = TransientFault if status == 429 else InfrastructureFault
            return fault(Cause.QUOTA, detail, provider=provider, retry_after_s=retry_after_s)
        case Meaning.FAILED:
            return TransientFault(Cause.PROVIDER_DOWN, detail, provider=provider, retry_after_s=retry_after_s)
    if status < 400 and not words:
        detail = f"the answer holds no {call.expects}" if call.expects else detail
        return InfrastructureFault(Cause.BAD_ANSWER, detail, provider=provider)
    _log_unknown(call, status, detail)
    return Refused(Cause.BAD_ANSWER, detail, provider=provider)


_logged: set[tuple[str, str]] = set()
_MAX_LOGGED = 200  # kinds that one process logs: an answer may repeat the request


def _log_unknown(call: Call, status: int, detail: str) -> None:
    """Count a refusal that masks its sample, and log each kind once per process."""
    telemetry.worker_metrics().refused(call.provider, status)
    kind = (call.provider, "".join(c for c in detail[:120] if not c.isdigit()))
    if kind in _logged or len(_logged) >= _MAX_LOGGED:
        return
    _logged.add(kind)
    logger.warning(
        "%s refused a request for an unknown reason, so the sample is masked: %s",
        call.provider,
        detail,
    )


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


def _requested_delay_s(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return (error.retry_after_s or 0.0) if isinstance(error, JobError) else 0.0


def _wait(state: tenacity.RetryCallState) -> float:
    return max(_JITTER(state), _requested_delay_s(state))


def _too_late(state: tenacity.RetryCallState, deadline: float) -> bool:
    """Whether the next attempt would begin past the deadline (tenacity fills in `upcoming_sleep` first)."""
    return time.time() + state.upcoming_sleep >= deadline
