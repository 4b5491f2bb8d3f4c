"""The audit finds what it should: each rule broken by hand, and a healthy trial that breaks none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmi.load.chaos.audit import Evidence, Rule, audit
from llmi.load.testbed.groups import Sample
from policy.document import Document, Task, TextPart
from policy.ledger.records import Ledger, RequestRecord, RolloutRecord
from policy.scoring import Score
from workers.errors import Cause
from workers.messages import BlobRef, Failure, Outcome, Request, SearchPayload, Success

TASK = Task(question="Write.")
REF = BlobRef(sha256="a" * 64, media_type="image/png", size=9, width=3, height=3)
FOUND = Success(images=(REF,))
REQUEST = Request.make("search", SearchPayload(query="a cat"), timeout_s=9.0, request_id="r-0", owner="g_0")


def outcome(result: Success | Failure) -> Outcome:
    return Outcome(request_id="r-0", kind="search", result=result)


def rollout(reward: float | None = 0.5, state: str | None = "trained") -> RolloutRecord:
    document = Document(rollout_id="g_0", task=TASK, parts=(TextPart(text="words"),))
    score = Score(reward=reward) if reward is not None else None
    return RolloutRecord("g_0", task=TASK, document=document, score=score, state=state)  # type: ignore[arg-type]


@pytest.fixture
def evidence() -> Evidence:
    """One request, one rollout, all well."""
    ledger = Ledger(
        rollouts={"g_0": rollout()}, requests={"r-0": RequestRecord(REQUEST, 1.0, outcome(FOUND), 2.0)}
    )
    return Evidence(
        ledger, [Sample("g_0", 0.5)], {"r-0": outcome(FOUND)}, {"r-0": 1}, frozenset(), {"search": 0}
    )


def broken(rules: list[Rule]) -> dict[str, tuple[str, ...]]:
    return {rule.name: rule.violations for rule in rules if rule.violations}


def test_a_healthy_trial_breaks_no_rule(evidence):
    assert broken(audit(evidence)) == {}


def test_a_request_without_outcome_is_lost(evidence):
    evidence.ledger.requests["r-0"].outcome = None
    found = broken(audit(evidence))
    assert found["a posted request has one outcome"] == ("request r-0 (search) has no outcome",)


@pytest.mark.parametrize(("starts", "violations"), [(0, 1), (1, 0)])
def test_a_timed_out_request_without_a_start_breaks_a_rule(evidence, starts, violations):
    evidence.ledger.requests["r-0"].outcome = outcome(Failure(cause=Cause.TIMEOUT))
    evidence.ledger.rollouts["g_0"] = rollout(None, "masked")
    found = broken(audit(replace(evidence, batch=[], stored={}, starts={"r-0": starts})))
    assert len(found.get("a worker starts it before its deadline", ())) == violations


@pytest.mark.parametrize(
    "text", ["request r-0 has two outcomes", "outcome of request x, which was never posted"]
)
def test_a_second_outcome_in_the_ledger_breaks_a_rule(evidence, text):
    evidence.ledger.violations.append(text)
    assert broken(audit(evidence)) == {"a posted request has one outcome": (text,)}


def test_a_stored_success_that_differs_from_the_received_one_breaks_a_rule(evidence):
    other = Success(images=(REF.model_copy(update={"sha256": "b" * 64}),))
    found = broken(audit(replace(evidence, stored={"r-0": outcome(other)})))
    assert list(found) == ["the stored outcome is the one received"]


def test_a_success_stored_after_a_received_failure_is_allowed(evidence):
    failure = Failure(cause=Cause.WORKER_LOST)
    evidence.ledger.requests["r-0"].outcome = outcome(failure)
    evidence.ledger.rollouts["g_0"] = rollout(None, "masked")
    assert broken(audit(replace(evidence, batch=[]))) == {}


def test_an_outcome_of_a_request_never_posted_breaks_a_rule(evidence):
    found = broken(audit(replace(evidence, stored={"x": outcome(FOUND)})))
    assert list(found) == ["the stored outcome is the one received"]


def test_a_reference_to_a_broken_blob_breaks_a_rule(evidence):
    found = broken(audit(replace(evidence, broken={REF.sha256})))
    assert found == {
        "a referenced blob is there and whole": (f"blob {REF.sha256} of request r-0 is missing or damaged",)
    }


def test_a_rollout_without_a_terminal_state_breaks_a_rule(evidence):
    evidence.ledger.rollouts["g_0"].state = None
    assert "a rollout has one terminal state" in broken(audit(replace(evidence, batch=[])))


def test_a_reward_after_an_infrastructure_failure_breaks_a_rule(evidence):
    evidence.ledger.requests["r-0"].outcome = outcome(Failure(cause=Cause.QUOTA))
    found = broken(audit(replace(evidence, stored={})))
    assert list(found) == ["no reward comes from an infrastructure failure"]


def test_a_number_despite_the_models_failure_is_right(evidence):
    evidence.ledger.requests["r-0"].outcome = outcome(Failure(cause=Cause.NO_HIT))
    assert broken(audit(replace(evidence, stored={}))) == {}


@pytest.mark.parametrize(
    ("reward", "state"),
    [(None, "masked"), (0.5, "masked"), (0.7, "trained")],
    ids=["masked", "dropped", "other"],
)
def test_a_sample_that_is_not_trained_in_the_ledger_breaks_a_rule(evidence, reward, state):
    evidence.ledger.rollouts["g_0"] = rollout(reward, state)
    assert list(broken(audit(evidence))) == ["no masked sample is in a batch, none twice"]


def test_a_sample_trained_on_twice_breaks_a_rule(evidence):
    found = broken(audit(replace(evidence, batch=[Sample("g_0", 0.5), Sample("g_0", 0.5)])))
    assert found == {"no masked sample is in a batch, none twice": ("rollout g_0 is in a batch twice",)}


def test_a_message_left_in_a_queue_breaks_a_rule(evidence):
    found = broken(audit(replace(evidence, left={"search": 2, "edit": 0})))
    assert found == {"nothing is left in the queues": ("2 messages are left in search",)}
