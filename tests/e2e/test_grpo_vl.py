"""Three GRPO steps of the tiny Qwen2.5-VL: the model, the tools and the judges all see the user's
pictures."""

from __future__ import annotations

import pytest

from policy.ledger import reward_curve

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def run(demo):
    return demo("vl")


def test_every_step_was_trained_on_full_groups(run):
    assert [step["training/global_step"] for step in run.metrics] == [1, 2, 3]
    assert run.ledger.states()["open"] == 0
    assert run.ledger.violations == []
    assert all(step["actor/grad_norm"] > 0 for step in run.metrics)


def test_the_reward_verl_learns_from_is_the_one_in_the_ledger(run):
    told = {int(step["training/global_step"]): step["critic/score/mean"] for step in run.metrics}
    assert reward_curve(run.ledger) == pytest.approx(told, abs=1e-4)


def test_prompts_come_with_pictures_that_edits_change(run):
    inputs = {ref for record in run.ledger.rollouts.values() for ref in record.task.inputs}
    assert inputs
    requests = [record.request for record in run.ledger.requests.values()]
    edited = {request.payload["image"]["sha256"] for request in requests if request.kind == "edit"}
    assert edited & {ref.sha256 for ref in inputs}
