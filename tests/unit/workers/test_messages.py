"""Messages survive JSON, and malformed ones are refused."""

from __future__ import annotations

import json
import time

import fuzz
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from workers.errors import Cause, Fault, InfrastructureFault, ModelFault
from workers.messages import (
    BlobRef,
    CodePayload,
    EditPayload,
    Failure,
    Outcome,
    Request,
    SearchPayload,
    Success,
    valid_unicode,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # no half surrogates: JSON in UTF-8 cannot hold them
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
PAYLOADS = st.dictionaries(TEXT, JSON, max_size=4)


def request(payload: dict, **changes: object) -> Request:
    return Request.model_validate(
        {"request_id": "r", "kind": "code", "payload": payload, "deadline": 1.0, **changes}
    )


@given(PAYLOADS, st.integers(), TEXT)
def test_a_request_survives_json(payload: dict, seed: int, owner: str) -> None:
    sent = request(payload, seed=seed, owner=owner)
    assert Request.model_validate_json(sent.model_dump_json()) == sent


@given(PAYLOADS)
def test_the_key_depends_on_the_effect_alone(payload: dict) -> None:
    one = request(payload)
    backwards = dict(reversed(payload.items()))
    assert one.key == request(backwards, request_id="other", deadline=9.0, owner="somebody").key
    assert one.key != request(payload, seed=1).key
    assert one.key != request(payload, kind="search").key
    assert one.key != request({**payload, "one more": 1}).key or payload.get("one more") == 1


@given(TEXT, st.dictionaries(TEXT, JSON, max_size=3), st.sampled_from(Cause))
def test_an_outcome_survives_json_and_keeps_its_kind(detail: str, source: dict, cause: Cause) -> None:
    for result in (Success(source=source, verdict={"text": 5}), Failure(cause=cause, detail=detail)):
        sent = Outcome(request_id="r", kind="code", result=result, started=1.0, finished=2.0)
        back = Outcome.model_validate_json(sent.model_dump_json())
        assert back == sent
        assert type(back.result) is type(result)
        assert back.ok is isinstance(result, Success)


ANY_JSON = fuzz.json_values().filter(lambda value: fuzz.DEEP not in json.dumps(value))


@settings(max_examples=200)
@given(st.dictionaries(st.text(st.characters()), ANY_JSON, max_size=3), st.text(st.characters()))
def test_any_text_of_a_job_can_be_stored(said: dict, words: str) -> None:
    """Regression: half a character in what a service or a job said, and its outcome could not be stored."""
    asked = request(said, owner=words)
    assert Request.model_validate_json(asked.model_dump_json()) == asked
    assert asked.key == request(said).key
    for result in (Success(source=said), Failure(cause=Cause.INTERNAL, detail=words, provider=words)):
        received = Outcome(request_id="r", kind="code", result=result, worker=words)
        assert Outcome.model_validate_json(received.model_dump_json()) == received


def test_surrogate_pairs_are_joined_and_lone_ones_replaced() -> None:
    assert valid_unicode("\ud83e\udd8a and \ud83e") == "🦊 and \ufffd"
    assert Success(source={"a": [float("nan"), {"\ud83e": 1.5}]}).source == {"a": [None, {"\ufffd": 1.5}]}


def test_a_request_gets_its_own_id_and_an_absolute_deadline() -> None:
    before = time.time()
    one, other = (Request.make("search", SearchPayload(query="owl"), timeout_s=10.0) for _ in range(2))
    assert one.request_id != other.request_id
    assert before + 10.0 <= one.deadline <= time.time() + 10.0
    assert one.payload == {"query": "owl"}


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 1},
        {"version": "2"},
        {"request_id": ""},
        {"request_id": "x" * 129},
        {"surprise": 1},
        {"payload": b"bytes"},
        {"deadline": float("nan")},
        {"deadline": float("inf")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_malformed_request_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        request(**{"payload": {}, **changes})


def test_an_outcome_cannot_finish_before_it_started() -> None:
    with pytest.raises(ValidationError, match="before started"):
        Outcome(request_id="r", kind="code", result=Success(), started=2.0, finished=1.0)


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (SearchPayload, {"query": ""}),
        (CodePayload, {"code": ""}),
        (EditPayload, {"prompt": "brighter", "image": {"sha256": "not a hash"}}),
        (BlobRef, {"sha256": "0" * 64, "media_type": "image/gif", "size": 1, "width": 1, "height": 1}),
        (BlobRef, {"sha256": "0" * 64, "media_type": "image/png", "size": 0, "width": 1, "height": 1}),
    ],
)
def test_an_empty_payload_is_refused(model: type[BaseModel], values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(values)


@pytest.mark.parametrize("cause", Cause)
def test_a_fault_accepts_only_its_own_causes(cause: Cause) -> None:
    right, wrong = (
        (ModelFault, InfrastructureFault) if cause.fault is Fault.MODEL else (InfrastructureFault, ModelFault)
    )
    assert Failure.of(right(cause, "why")).fault is cause.fault
    with pytest.raises(ValueError, match="fault"):
        wrong(cause, "why")


def test_a_long_detail_is_cut() -> None:
    assert len(Failure.of(ModelFault(Cause.CODE_RAISED, "x" * 10_000)).detail) == 2000
