"""The tiny Qwen2.5-VL: the model, the tools and the judges get the user's images."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]


def requests(run, kind):
    return [record.request for record in run.ledger.requests.values() if record.request.kind == kind]


def test_every_prompt_has_an_image(vl):
    assert all(record.task.inputs for record in vl.ledger.rollouts.values())


def test_edits_change_the_users_images(vl):
    inputs = {ref.sha256 for record in vl.ledger.rollouts.values() for ref in record.task.inputs}
    assert inputs & {request.payload["image"]["sha256"] for request in requests(vl, "edit")}


def test_the_image_judge_gets_the_users_images(vl):
    judged = [record for record in vl.ledger.requests.values() if record.request.kind == "judge_image"]
    assert judged
    for record in judged:
        given = [ref.sha256 for ref in vl.ledger.owner(record).task.inputs]
        assert [ref["sha256"] for ref in record.request.payload["inputs"]] == given
