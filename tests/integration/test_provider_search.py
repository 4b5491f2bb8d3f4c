"""SerpAPI as documented, from a local server: what is found, what fails, and the fault of each failure."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from typing import Any

import provider_calls
import pytest
from fake_services import KEY, FakeServices
from PIL import Image
from waiting import wait_until

from workers.errors import Cause, InfrastructureFault, ModelFault
from workers.providers.http import api
from workers.providers.provider import ProviderImage
from workers.providers.search import serpapi
from workers.settings import SearchSettings


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServices]:
    monkeypatch.setenv("SERP_API_KEY", KEY)
    with FakeServices() as running:
        yield running


def look(services: FakeServices, *, seconds: float = 20, **settings: Any) -> ProviderImage:
    chosen = {"provider": "serpapi", "base_url": services.url, "allow_private_addresses": True, **settings}
    return provider_calls.search(
        "a fox", SearchSettings.model_validate(chosen), deadline=time.time() + seconds
    )


def result(services: FakeServices, original: str | None, **more: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"position": 1, "title": "A fox", "link": "https://example.org/fox", **more}
    return found | ({"original": services.url + original} if original else {})


def test_query_and_key_are_sent_and_the_original_is_returned_with_its_source(services: FakeServices) -> None:
    services.results = [result(services, "/picture.png", thumbnail=services.url + "/thumb.png")]
    made = look(services)
    assert Image.open(io.BytesIO(made.image)).size == (96, 64)
    assert services.calls("/search")[0].query == {"engine": "google_images", "q": "a fox", "api_key": KEY}
    assert made.source == {
        "provider": "serpapi",
        "url": services.url + "/picture.png",
        "page": "https://example.org/fox",
        "title": "A fox",
        "rank": 0,
    }
    assert not services.calls("/thumb.png")


def test_a_result_without_original_uses_its_thumbnail(services: FakeServices) -> None:
    services.results = [result(services, None, thumbnail=services.url + "/picture.png")]
    assert look(services).source["url"] == services.url + "/picture.png"


def test_broken_and_missing_results_are_skipped_in_order_of_rank(services: FakeServices) -> None:
    services.results = [result(services, path) for path in ("/broken.png", "/gone.png", "/picture.png")]
    assert look(services).source["rank"] == 2


def test_thumbnails_are_the_last_resort(services: FakeServices) -> None:
    services.results = [result(services, "/gone.png", thumbnail=services.url + "/picture.png")]
    assert look(services).source["url"].endswith("/picture.png")


@pytest.mark.parametrize(
    ("titles", "chosen"),
    [
        (("Quarterly report", "A red fox"), 1),
        (("A wolf", None, "Foxes of Hokkaido", "A fox"), 2),
        (("A photo of a dog", "FOX!"), 1),
        (("A fox", "Red fox"), 0),
        (("キタキツネ", "レッサーパンダ"), 0),
        ((None, ""), 0),
        (("\ud83d", "fox \ud83d"), 1),
    ],
)
def test_titles_that_share_a_word_with_the_query_go_first(
    services: FakeServices, titles: tuple[str | None, ...], chosen: int
) -> None:
    """Regression: the original took the first result, whatever it showed."""
    services.results = [result(services, "/picture.png", title=title) for title in titles]
    assert look(services).source["rank"] == chosen


def test_titles_that_share_no_word_come_after_thumbnails(services: FakeServices) -> None:
    services.results = [
        result(services, "/picture.png", title="A whale"),
        result(services, "/gone.png", thumbnail=services.url + "/picture.png"),
    ]
    assert look(services).source["rank"] == 1
    services.results[1]["thumbnail"] = services.url + "/broken.png"
    assert look(services).source["rank"] == 0


def test_a_title_that_fits_is_found_beyond_the_results_that_are_tried(services: FakeServices) -> None:
    services.results = [result(services, "/picture.png", title="A whale")] * 9
    services.results.append(result(services, "/picture.png"))
    assert look(services, max_candidates=1).source["rank"] == 9


def test_a_slow_host_does_not_delay_a_search(services: FakeServices) -> None:
    services.results = [result(services, "/slow.png"), result(services, "/picture.png")]
    assert look(services).source["rank"] == 1
    wait_until(lambda: services.gone, 5.0)
    assert services.gone == 1


def test_of_simultaneous_results_the_best_ranked_is_used(
    services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_asked_for = asyncio.Event()

    async def obtain(_: Any, candidate: serpapi.Candidate, *__: Any) -> ProviderImage:
        if candidate.rank == 7:
            all_asked_for.set()
        await all_asked_for.wait()
        return ProviderImage(b"", {"rank": candidate.rank})

    monkeypatch.setattr(serpapi, "HEAD_START_S", 0.0)
    monkeypatch.setattr(serpapi, "_obtain", obtain)
    services.results = [result(services, "/picture.png")] * 8
    assert look(services, max_candidates=8).source["rank"] == 0


def test_unfetchable_results_are_an_infrastructure_failure(services: FakeServices) -> None:
    services.results = [result(services, "/broken.png"), result(services, "/gone.png")]
    with pytest.raises(InfrastructureFault) as caught:
        look(services)
    assert caught.value.cause is Cause.BAD_ANSWER


def test_the_number_of_results_tried_is_limited(services: FakeServices) -> None:
    services.results = [result(services, "/gone.png")] * 4 + [result(services, "/picture.png")]
    with pytest.raises(InfrastructureFault):
        look(services, max_candidates=3)
    assert len(services.calls("/gone.png")) == 3


def test_results_in_a_private_network_are_not_fetched(services: FakeServices) -> None:
    services.results = [result(services, "/picture.png")]
    with pytest.raises(InfrastructureFault) as caught:
        look(services, allow_private_addresses=False)
    assert caught.value.cause is Cause.BAD_ANSWER
    assert not services.calls("/picture.png")


@pytest.mark.parametrize("answer", [None, {"images_results": []}])
def test_nothing_found_is_the_models_fault(services: FakeServices, answer: Any) -> None:
    services.script["/search"] = [(200, {}, answer)] if answer else []
    with pytest.raises(ModelFault) as caught:
        look(services)
    assert caught.value.cause is Cause.NO_HIT


def test_a_wrong_key_is_not_retried(services: FakeServices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERP_API_KEY", "another")
    with pytest.raises(InfrastructureFault) as caught:
        look(services)
    assert caught.value.cause is Cause.AUTH
    assert len(services.calls("/search")) == 1


def test_a_missing_key_names_its_variable(services: FakeServices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERP_API_KEY")
    with pytest.raises(InfrastructureFault, match="SERP_API_KEY") as caught:
        look(services)
    assert caught.value.cause is Cause.AUTH
    assert not services.seen


def test_the_key_is_in_no_detail(services: FakeServices) -> None:
    services.script["/search"] = [(400, {}, {"error": f"no such parameter in /search?api_key={KEY}"})]
    with pytest.raises(InfrastructureFault) as caught:
        look(services)
    assert KEY not in str(caught.value)
    with pytest.raises(InfrastructureFault) as caught:
        look(services, base_url="http://127.0.0.1:9", seconds=1)
    assert KEY not in f"{caught.value} {caught.value.__cause__!r}"
    assert caught.value.cause is Cause.PROVIDER_DOWN


def test_a_quota_error_is_retried_after_its_retry_after(
    services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def record(seconds: float) -> None:
        pauses.append(seconds)

    retrying = api.retrying
    monkeypatch.setattr(api, "retrying", lambda deadline: retrying(deadline).copy(sleep=record))
    services.results = [result(services, "/picture.png")]
    services.script["/search"] = [(429, {"Retry-After": "10"}, {"error": "Too many requests"})]
    look(services)
    assert len(services.calls("/search")) == 2
    assert pauses == [10.0], "longer than any pause of its own"


def test_a_retry_after_beyond_the_deadline_fails_at_once(services: FakeServices) -> None:
    services.script["/search"] = [
        (429, {"Retry-After": "3600"}, {"error": "Your account has run out of searches."})
    ]
    with pytest.raises(InfrastructureFault, match="run out of searches") as caught:
        look(services, seconds=30)
    assert (caught.value.cause, caught.value.retry_after_s) == (Cause.QUOTA, 3600)


def test_a_failing_server_is_retried(services: FakeServices) -> None:
    services.results = [result(services, "/picture.png")]
    services.script["/search"] = [(503, {}, "down"), (500, {}, {"error": "oops"})]
    look(services)
    assert len(services.calls("/search")) == 3


def test_retries_of_a_server_that_stays_down_are_limited(services: FakeServices) -> None:
    services.script["/search"] = [(503, {}, "down")] * 9
    with pytest.raises(InfrastructureFault) as caught:
        look(services)
    assert caught.value.cause is Cause.PROVIDER_DOWN
    assert len(services.calls("/search")) == 4


@pytest.mark.parametrize(
    "answer",
    [
        (400, {}, {"error": "Unsupported query."}),
        (400, {}, {"error": f"cannot be read: /search?q=x&api_key={KEY}"}),
        (400, {}, "<html>Bad Request</html>"),
        (414, {}, "<html>Request-URI Too Large</html>"),
        (200, {}, {"error": "Query is too long."}),
    ],
)
def test_a_query_that_is_refused_is_the_models_fault(services: FakeServices, answer: Any) -> None:
    services.script["/search"] = [answer]
    with pytest.raises(ModelFault) as caught:
        look(services)
    assert caught.value.cause is Cause.PROMPT_REFUSED
    assert KEY not in caught.value.detail


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ((401, {}, {"error": "Invalid API key."}), Cause.AUTH),
        ((400, {}, {"error": "Invalid API key. Your API key should be here: https://e.org"}), Cause.AUTH),
        ((429, {}, {"error": "Your account has run out of searches."}), Cause.QUOTA),
        ((200, {}, {"error": "Your account has run out of searches."}), Cause.QUOTA),
        (
            (400, {}, {"error": "Unsupported `bing_image` search engine.", "param": "engine"}),
            Cause.BAD_ANSWER,
        ),
    ],
)
def test_a_search_that_plan_or_key_forbids_is_an_infrastructure_failure(
    services: FakeServices, monkeypatch: pytest.MonkeyPatch, answer: Any, cause: Cause
) -> None:
    monkeypatch.setattr(api, "MAX_TRIES", 1)
    services.script["/search"] = [answer]
    with pytest.raises(InfrastructureFault) as caught:
        look(services)
    assert caught.value.cause is cause


@pytest.mark.parametrize(
    "answer",
    [
        "<html>",
        "[]",
        {"images_results": "none"},
        {"images_results": [{"original": 7}]},
        {"error": "Unsupported"},
    ],
)
def test_an_unreadable_answer_is_a_bad_answer(services: FakeServices, answer: Any) -> None:
    services.script["/search"] = [(200, {}, answer)]
    with pytest.raises(InfrastructureFault) as caught:
        look(services)
    assert caught.value.cause is Cause.BAD_ANSWER


def test_the_deadline_ends_a_search(services: FakeServices) -> None:
    services.results = [result(services, "/slow.png")]
    with pytest.raises(InfrastructureFault) as caught:
        look(services, seconds=1)
    assert caught.value.cause is Cause.HOST_DOWN
