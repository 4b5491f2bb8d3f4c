"""Parquet files of conversations."""

from __future__ import annotations

import math
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policy.sft.examples import INVALID_TAG, Example, load, of_file, write
from workers.errors import ConfigError

USER, ANSWER = {"role": "user", "content": "Draw."}, {"role": "assistant", "content": "Words."}
SYSTEM = {"role": "system", "content": "Be brief."}
WRONG = "<imgen>{'source': 'none'}</imgen>"


@pytest.fixture
def file(tmp_path):
    def make(*conversations, **columns):
        path = tmp_path / "talks.parquet"
        pq.write_table(pa.table({"messages": list(conversations), **columns}), path)
        return path

    return make


def test_every_answer_of_a_conversation_is_an_example(file):
    more = {"role": "user", "content": "Again."}, {"role": "assistant", "content": "More."}
    found = of_file(file([SYSTEM, USER, ANSWER, *more]), "").examples
    assert found == (Example((SYSTEM, USER), "Words."), Example((SYSTEM, USER, ANSWER, more[0]), "More."))


def test_the_system_prompt_of_rollouts_replaces_the_own(file):
    [example] = of_file(file([SYSTEM, USER, ANSWER]), "Ours.").examples
    assert example.messages == ({"role": "system", "content": "Ours."}, USER)


def test_an_answer_with_an_invalid_tag_is_left_out(file):
    found = of_file(file([USER, ANSWER], [USER, {"role": "assistant", "content": WRONG}]), "")
    assert (len(found.examples), found.left_out) == (1, Counter({INVALID_TAG: 1}))


def test_what_is_written_is_read_again_and_is_a_source(tmp_path):
    examples = [
        Example((SYSTEM, USER), "Words.", 0.5, "a_0"),
        Example((USER, ANSWER, USER), "Ends with a break.\n"),
    ]
    write(tmp_path / "examples.parquet", examples)
    assert load(tmp_path / "examples.parquet") == examples
    assert of_file(tmp_path / "examples.parquet", "").examples[0] == Example((SYSTEM, USER), "Words.")


@pytest.mark.parametrize("reward", ["good", {"mean": 0.5}, math.nan])
def test_a_column_reward_of_another_program_is_not_read(file, reward):
    found = of_file(file([USER, ANSWER], reward=[reward], rollout_id=[7]), "")
    assert found.examples == (Example((USER,), "Words."),)


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        ([USER], r"row 0: messages: must end with a message of the assistant"),
        ([], r"must end with a message of the assistant"),
        ([ANSWER], r"and a message of the user before it"),
        ([USER, {"role": "assistant", "content": " "}], r"every message of the assistant needs a text"),
        ([USER, ANSWER, ANSWER], r"and a message of the user before it"),
        ([{"role": "tool", "content": "x"}, ANSWER], r"needs a role \(system, user, assistant\) and a text"),
    ],
)
def test_a_conversation_of_another_form_is_refused(file, conversation, message):
    with pytest.raises(ConfigError, match=message):
        of_file(file(conversation), "")


def test_messages_that_are_text_are_refused(file):
    with pytest.raises(ConfigError, match="row 0: messages: must end"):
        of_file(file("Draw."), "")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"prompt": ["Draw."]},
            r"column messages is missing \(it has prompt\); it has prompts without answers",
        ),
        ({"message": ["Draw."]}, r"did you mean message\? Rename it"),
        ({"text": ["Draw."]}, r"name a Parquet file of conversations, with a column messages"),
    ],
)
def test_a_file_with_other_columns_is_refused(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "other.parquet")
    with pytest.raises(ConfigError, match=message):
        of_file(tmp_path / "other.parquet", "")


def test_rows_with_images_are_refused(file):
    with pytest.raises(ConfigError, match="row 1: has images, and llmi sft trains on text alone"):
        of_file(file([USER, ANSWER], [USER, ANSWER], images=[[], [b"png"]]), "")


def test_a_file_of_another_format_is_refused(tmp_path):
    (tmp_path / "talks.jsonl").write_text('{"messages": []}\n')
    with pytest.raises(ConfigError, match="not a Parquet file; name a Parquet file of conversations"):
        of_file(tmp_path / "talks.jsonl", "")
    with pytest.raises(ConfigError, match="does not exist"):
        of_file(tmp_path / "none.parquet", "")
