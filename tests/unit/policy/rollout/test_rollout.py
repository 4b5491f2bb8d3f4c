"""A rollout with a scripted model and a queue held by the test: what is posted when, and how every rollout
ends."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import END, PATIENCE_S, PROMPT, Judge, Model, Queue, blob, decode, edit, search

from policy.document import InvalidPart, Task, TextPart
from policy.ledger.reader import read_ledger
from policy.ledger.writer import LedgerWriter
from policy.resume.completions import CompletionStore
from policy.resume.state import ResumeClient
from policy.rollout.detokenizer import Detokenizer
from policy.rollout.result import Segment, replay, restored
from policy.rollout.rollout import Limits, Rollout
from workers.errors import Cause
from workers.messages import Failure, Success


@pytest.fixture
def build(tmp_path):
    ledger = LedgerWriter(tmp_path, "rollout")

    def make(
        text: str = "", *, model=None, queue=None, scorer=None, tokens=2000, timeout_s=PATIENCE_S, inputs=()
    ):
        task = Task(question="q", inputs=inputs)
        ledger.started("u_0", task, step=3)
        return Rollout(
            rollout_id="u_0",
            task=task,
            generate=model or Model(text),
            decode=decode,
            ends=frozenset({END}),
            client=queue or Queue(),
            scorer=scorer or Judge(),
            ledger=ledger,
            limits=Limits(tokens, timeout_s),
        )

    yield make
    ledger.close()


async def finish(running: asyncio.Task):
    async with asyncio.timeout(PATIENCE_S):
        return await running


def state(tmp_path):
    return read_ledger(tmp_path).rollouts["u_0"].state


async def test_plain_text_is_scored_and_stays_open_for_the_sampler(build, tmp_path):
    written = await build("Só <image> é só texto.").run(PROMPT)
    assert written.document.parts == (TextPart(text="Só <image> é só texto."),)
    assert (written.reward, written.truncated, written.segments) == (1.0, False, 1)
    assert len(written.token_ids) == len(written.log_probs) == len("Só <image> é só texto.".encode()) + 1
    record = read_ledger(tmp_path).rollouts["u_0"]
    assert (record.state, record.reward, record.submitted_step, record.versions) == (None, 1.0, 3, (0, 1))


async def test_a_request_is_posted_when_its_tag_closes_while_the_model_writes_on(build):
    queue, model = Queue(), Model(f"One {search('cat')} two.", gate_at=1)
    running = asyncio.create_task(build(model=model, queue=queue).run(PROMPT))
    await queue.seen("u_0-0")
    assert len(model.calls) == 2  # the second segment is asked for, and nothing has answered
    assert not running.done()
    assert queue.requests["u_0-0"].payload == {"query": "cat"}
    assert queue.requests["u_0-0"].owner == "u_0"
    model.gate.set()
    queue.answer("u_0-0", Success(images=(blob("a"),)))
    written = await finish(running)
    assert [part.type for part in written.document.parts] == ["text", "image", "text"]
    assert written.document.images[0].blob == blob("a")


async def test_the_text_is_judged_before_any_image_is_in(build):
    queue, judge = Queue(), Judge()
    running = asyncio.create_task(build(f"a {search('x')} b", queue=queue, scorer=judge).run(PROMPT))
    async with asyncio.timeout(PATIENCE_S):
        await judge.drafted.wait()
    assert judge.documents[0].images[0].outcome is None
    queue.answer("u_0-0", Success(images=(blob("a"),)))
    assert (await finish(running)).document.images[0].outcome is not None


async def test_an_edit_waits_for_its_image_and_for_nothing_else(build):
    queue = Queue()
    text = f"{search('slow')} {search('wanted')} {edit(1)}"
    running = asyncio.create_task(build(text, queue=queue).run(PROMPT))
    await queue.seen("u_0-0", "u_0-1")
    assert "u_0-2" not in queue.requests
    queue.answer("u_0-1", Success(images=(blob("b"),)))
    await queue.seen("u_0-2")  # while u_0-0 is still unanswered
    assert queue.requests["u_0-2"].payload["image"]["sha256"] == "b" * 64
    queue.answer("u_0-2", Success(images=(blob("c"),)))
    queue.answer("u_0-0", Success(images=(blob("a"),)))
    written = await finish(running)
    assert [image.blob.sha256[0] for image in written.document.images] == ["a", "b", "c"]


async def test_an_edit_of_an_input_image_is_posted_at_once(build):
    queue = Queue()
    running = asyncio.create_task(build(edit(0), queue=queue, inputs=(blob("e"),)).run(PROMPT))
    await queue.seen("u_0-0")
    assert queue.requests["u_0-0"].payload["image"]["sha256"] == "e" * 64
    queue.answer("u_0-0", Success(images=(blob("f"),)))
    await finish(running)


@pytest.mark.parametrize(
    ("first", "second", "masked"),
    [
        (Cause.NO_HIT, Cause.INPUT_FAILED, False),
        (Cause.WORKER_LOST, Cause.INPUT_UNAVAILABLE, True),
    ],
)
async def test_an_edit_inherits_the_fault_of_its_image_unposted(build, tmp_path, first, second, masked):
    queue = Queue()
    running = asyncio.create_task(build(f"{search('x')} {edit(0)}", queue=queue).run(PROMPT))
    await queue.seen("u_0-0")
    queue.answer("u_0-0", Failure(cause=first))
    written = await finish(running)
    assert [image.failure.cause for image in written.document.images] == [first, second]
    assert list(queue.requests) == ["u_0-0"]
    assert (written.reward is None) == masked
    assert state(tmp_path) == ("masked" if masked else None)


async def test_an_edit_of_an_invalid_tag_is_the_models_fault(build):
    written = await build(f"<imgen>nonsense</imgen> {edit(0)}").run(PROMPT)
    assert isinstance(written.document.parts[0], InvalidPart)
    assert written.document.images[0].failure.cause is Cause.INPUT_FAILED
    assert written.reward is not None


def lost(digit: str) -> Failure:
    return Failure(cause=Cause.BLOB_MISSING, detail="damaged", blob=digit * 64)


async def test_an_edit_of_a_lost_image_regenerates_it_and_is_posted_again(build):
    queue = Queue()
    running = asyncio.create_task(build(f"{search('x')} {edit(0)}", queue=queue).run(PROMPT))
    await queue.seen("u_0-0")
    queue.answer("u_0-0", Success(images=(blob("a"),)))
    await queue.seen("u_0-1")
    queue.answer("u_0-1", lost("a"))
    await queue.seen("u_0-0.1")
    assert queue.requests["u_0-0.1"].payload == queue.requests["u_0-0"].payload
    queue.answer("u_0-0.1", Success(images=(blob("b"),)))  # a search may find another one today
    await queue.seen("u_0-1.1")
    assert queue.requests["u_0-1.1"].payload["image"]["sha256"] == "b" * 64
    queue.answer("u_0-1.1", Success(images=(blob("c"),)))
    written = await finish(running)
    assert [(image.request_id, image.blob) for image in written.document.images] == [
        ("u_0-0.1", blob("b")),
        ("u_0-1.1", blob("c")),
    ]


async def test_an_image_lost_with_its_source_is_regenerated_from_the_start(build):
    queue = Queue()
    running = asyncio.create_task(build(f"{search('x')} {edit(0)} {edit(1)}", queue=queue).run(PROMPT))
    answers = {
        "u_0-0": Success(images=(blob("a"),)),
        "u_0-1": Success(images=(blob("b"),)),
        "u_0-2": lost("b"),
        "u_0-1.1": lost("a"),
        "u_0-0.1": Success(images=(blob("a"),)),
        "u_0-1.2": Success(images=(blob("b"),)),
        "u_0-2.1": Success(images=(blob("c"),)),
    }
    for name, result in answers.items():
        await queue.seen(name)
        queue.answer(name, result)
    written = await finish(running)
    assert [image.blob for image in written.document.images] == [blob("a"), blob("b"), blob("c")]
    assert list(queue.requests) == list(answers)


async def test_an_image_lost_twice_masks(build):
    queue = Queue()
    running = asyncio.create_task(build(f"{search('x')} {edit(0)}", queue=queue).run(PROMPT))
    found = Success(images=(blob("a"),))
    for name, result in {"0": found, "1": lost("a"), "0.1": found, "1.1": lost("a")}.items():
        await queue.seen(f"u_0-{name}")
        queue.answer(f"u_0-{name}", result)
    written = await finish(running)
    assert written.reward is None
    assert written.document.images[1].failure.cause is Cause.BLOB_MISSING


async def test_an_image_that_cannot_be_regenerated_masks_for_any_cause(build):
    queue = Queue()
    running = asyncio.create_task(build(f"{search('x')} {edit(0)}", queue=queue).run(PROMPT))
    gone = Failure(cause=Cause.NO_HIT)
    for name, result in {"0": Success(images=(blob("a"),)), "1": lost("a"), "0.1": gone}.items():
        await queue.seen(f"u_0-{name}")
        queue.answer(f"u_0-{name}", result)
    written = await finish(running)
    assert [failure.cause for failure in written.score.masked_by] == [Cause.BLOB_MISSING]
    assert written.document.images[0].blob == blob("a")


async def test_a_lost_input_masks_without_another_request(build):
    queue = Queue()
    running = asyncio.create_task(build(edit(0), queue=queue, inputs=(blob("e"),)).run(PROMPT))
    await queue.seen("u_0-0")
    queue.answer("u_0-0", lost("e"))
    assert (await finish(running)).reward is None
    assert list(queue.requests) == ["u_0-0"]


async def test_a_scorer_can_regenerate_a_lost_image(build, tmp_path):
    class Finds(Judge):
        async def score(self, draft):
            await draft.finished
            assert await draft.remake("f" * 64) is None
            whole = await draft.remake("a" * 64)
            assert whole.images[0].blob == blob("b")
            return await super().score(draft)

    queue = Queue()
    running = asyncio.create_task(build(search("x"), queue=queue, scorer=Finds()).run(PROMPT))
    for name, digit in {"u_0-0": "a", "u_0-0.1": "b"}.items():
        await queue.seen(name)
        queue.answer(name, Success(images=(blob(digit),)))
    written = await finish(running)
    assert written.document.images[0].blob == blob("b")
    assert read_ledger(tmp_path).rollouts["u_0"].document == written.document


async def test_a_queue_that_is_down_masks(build, tmp_path):
    written = await build(search("x"), queue=Queue(down=True)).run(PROMPT)
    assert written.reward is None
    assert written.document.images[0].failure.cause is Cause.PROVIDER_DOWN
    assert state(tmp_path) == "masked"


async def test_the_budget_is_of_all_segments_together(build):
    queue, text = Queue(), f"{search('x')} and much more text than fits"
    model = Model(text)
    tokens = len(search("x")) + 4
    running = asyncio.create_task(build(model=model, queue=queue, tokens=tokens).run(PROMPT))
    await queue.seen("u_0-0")
    queue.answer("u_0-0", Success(images=(blob("a"),)))
    written = await finish(running)
    assert written.truncated
    assert written.document.truncated
    assert len(written.token_ids) == tokens
    assert [left for _, left in model.calls] == [tokens, 4]
    assert [start for start, _ in model.calls] == [3, 3 + len(search("x"))]


async def test_a_tag_cut_off_by_the_budget_is_invalid_and_not_posted(build):
    queue = Queue()
    written = await build(search("x"), queue=queue, tokens=20).run(PROMPT)
    assert isinstance(written.document.parts[-1], InvalidPart)
    assert queue.requests == {}


async def test_a_missed_stop_loses_no_tag(build):
    """An aborted and resumed generation may run past a closing tag; what it wrote is still read in full."""

    class Runaway(Model):
        async def __call__(self, ids, left, number):
            return Segment(self.ids, [0.0] * len(self.ids))

    queue = Queue()
    running = asyncio.create_task(
        build(model=Runaway(f"{search('x')} mid {search('y')} end"), queue=queue).run(PROMPT)
    )
    await queue.seen("u_0-0", "u_0-1")
    for name in list(queue.requests):
        queue.answer(name, Success(images=(blob("a"),)))
    written = await finish(running)
    assert [part.type for part in written.document.parts] == ["image", "text", "image", "text"]


async def test_a_text_that_runs_out_of_time_is_cut_and_scored_as_it_stands(build, tmp_path):
    queue, model = Queue(), Model(f"One {search('x')} two {search('y')} three", gate_at=1)
    running = asyncio.create_task(build(model=model, queue=queue, timeout_s=0.5).run(PROMPT))
    await queue.seen("u_0-0")
    queue.answer("u_0-0", Success(images=(blob("a"),)))
    written = await finish(running)
    assert [part.type for part in written.document.parts] == ["text", "image"]
    assert (written.reward, written.out_of_time, written.truncated) == (0.1, True, False)
    assert written.document.out_of_time
    assert written.token_ids == model.ids[: len(f"One {search('x')}")]
    assert len(written.log_probs) == len(written.token_ids)
    assert state(tmp_path) is None, "the sampler may train on it"


async def test_a_long_text_without_tags_loses_little_when_its_time_runs_out(build, monkeypatch):
    monkeypatch.setattr("policy.rollout.rollout.SEGMENT_TOKENS", 10)
    model = Model("A long text without a tag.", gate_at=2)
    written = await build(model=model, timeout_s=0.5).run(PROMPT)
    assert written.document.text == "A long text without"[:20].strip()
    assert len(written.token_ids) == 20
    assert written.reward == 1.0


async def test_a_text_whose_generator_stood_still_is_masked_and_not_saved(build, tmp_path, monkeypatch):
    monkeypatch.setattr("policy.rollout.stalls.LEAST_S", 0.05)
    queue, model = Queue(), Model(f"One {search('x')} two", gate_at=1)
    began = build(model=model, queue=queue, tokens=len(f"One {search('x')}") + 1, timeout_s=0.5)
    texts = CompletionStore(tmp_path)
    written = await dataclasses.replace(began, texts=texts).run(PROMPT)
    [failure] = written.score.masked_by
    assert failure.cause == Cause.ROLLOUT_TIMEOUT
    assert "stood still" in failure.detail
    assert written.reward is None
    assert queue.cancelled == ["u_0-0"]
    assert texts.load("u_0") is None
    assert state(tmp_path) == "masked"


async def test_a_segment_that_reaches_its_limit_is_continued(build, monkeypatch):
    monkeypatch.setattr("policy.rollout.rollout.SEGMENT_TOKENS", 7)
    text = "Words, no tag, and more words than fit."
    model = Model(text)
    written = await build(model=model).run(PROMPT)
    assert written.document.text == text
    assert (written.truncated, written.token_ids) == (False, model.ids)
    assert {left for _, left in model.calls} == {7}


async def test_a_text_without_a_complete_segment_is_masked_by_its_own_cause(build, tmp_path):
    written = await build(model=Model("x", gate_at=0), timeout_s=0.1).run(PROMPT)
    assert [failure.cause for failure in written.score.masked_by] == [Cause.ROLLOUT_TIMEOUT]
    assert "no segment" in written.score.masked_by[0].detail
    assert (state(tmp_path), read_ledger(tmp_path).rollouts["u_0"].reason) == ("masked", "rollout_timeout")


async def test_tools_that_run_out_of_time_mask_and_are_cancelled(build, tmp_path):
    queue = Queue()
    written = await build(f"{search('x')} {edit(0)}", queue=queue, timeout_s=0.2).run(PROMPT)
    [failure] = written.score.masked_by
    assert (failure.cause, failure.fault) == (Cause.ROLLOUT_TIMEOUT, "infrastructure")
    assert failure.detail == "no outcome of search, edit within 0.2 s (train.rollout_timeout_s)"
    assert queue.cancelled == ["u_0-0"]
    assert state(tmp_path) == "masked"


async def test_judges_that_run_out_of_time_mask(build):
    class Silent(Judge):
        async def score(self, draft):
            await draft.finished
            await asyncio.Event().wait()

    written = await build("text", scorer=Silent(), timeout_s=0.1).run(PROMPT)
    assert [failure.cause for failure in written.score.masked_by] == [Cause.ROLLOUT_TIMEOUT]
    assert "its judges" in written.score.masked_by[0].detail


async def test_another_time_out_is_an_error_like_any_other(build, tmp_path):
    async def late(ids, left, number):
        raise TimeoutError("the server did not answer")

    class Late(Judge):
        async def score(self, draft):
            raise TimeoutError("the server did not answer")

    for parts in ({"model": late}, {"text": "x", "scorer": Late()}):
        with pytest.raises(TimeoutError, match="did not answer"):
            await build(**parts).run(PROMPT)
        record = read_ledger(tmp_path).rollouts["u_0"]
        assert (record.state, record.reason) == (None, "TimeoutError: the server did not answer")


async def test_cancelling_a_rollout_cancels_its_requests_and_leaves_no_task(build, tmp_path):
    queue = Queue()
    running = asyncio.create_task(build(f"{search('x')} {edit(0)}", queue=queue).run(PROMPT))
    await queue.seen("u_0-0")
    before = asyncio.all_tasks()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finish(running)
    assert queue.cancelled == ["u_0-0"]
    assert state(tmp_path) == "cancelled"
    assert not [task for task in asyncio.all_tasks() & before if task is not asyncio.current_task()]


async def test_an_error_of_the_generator_is_recorded_and_raised(build, tmp_path):
    async def broken(ids, left, number):
        raise ConnectionError("engine gone")

    with pytest.raises(ConnectionError):
        await build(model=broken).run(PROMPT)
    record = read_ledger(tmp_path).rollouts["u_0"]
    assert (record.state, record.reason) == (None, "ConnectionError: engine gone")


async def test_log_probabilities_must_match_the_tokens(build):
    async def short(ids, left, number):
        return Segment([65, END], [0.0])

    with pytest.raises(ValueError, match="2 tokens came with 1"):
        await build(model=short).run(PROMPT)


async def test_thoughts_are_not_parsed(build):
    queue = Queue()
    written = await build(f"<think>{search('x')}</think>Done.", queue=queue).run(PROMPT)
    assert written.document.parts == (TextPart(text="Done."),)
    assert queue.requests == {}


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.integers(0, 2**32))
def test_pieces_joined_are_the_whole_text(text, seed):
    ids, cut, pieces = list(text.encode()), random.Random(seed), []
    detokenizer = Detokenizer(decode)
    while ids:
        size = cut.choice((1, 2, 3, 4, 30))
        pieces.append(detokenizer.feed(ids[:size]))
        ids = ids[size:]
    pieces.append(detokenizer.close())
    assert "".join(pieces) == text


def test_a_long_text_is_decoded_once():
    counted = 0

    def counting(ids) -> str:
        nonlocal counted
        counted += len(ids)
        return decode(ids)

    detokenizer = Detokenizer(counting)
    for _ in range(100):
        detokenizer.feed(b"x" * 240)
    detokenizer.close()
    assert counted < 1.1 * 24_000


def test_bytes_that_never_become_a_character_are_decoded_a_bounded_number_of_times():
    counted = 0

    def counting(ids) -> str:
        nonlocal counted
        counted += len(ids)
        return decode(ids)

    detokenizer = Detokenizer(counting)
    garbage = b"\xff\x80\xe2\x82" * 1000
    pieces = [detokenizer.feed([byte]) for byte in garbage]
    assert "".join(pieces) + detokenizer.close() == garbage.decode("utf-8", "replace")
    assert counted < 100 * len(garbage)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([b"\x80", b"\xff", b"\xe2\x82", "€".encode(), b"\xf0", b"a"]), max_size=300))
def test_pieces_of_any_bytes_are_their_decoding(parts):
    data, detokenizer = b"".join(parts), Detokenizer(decode)
    pieces = [detokenizer.feed([byte]) for byte in data]
    assert "".join(pieces) + detokenizer.close() == data.decode("utf-8", "replace")


async def test_the_list_given_to_the_generator_does_not_change(build):
    model, given = Model(f"{search('x')} and on"), []

    async def keeping(ids, left, number):
        given.append((ids, len(ids)))
        return await model(ids, left, number)

    queue = Queue()
    running = asyncio.create_task(build(model=keeping, queue=queue).run(PROMPT))
    await queue.seen("u_0-0")
    queue.answer("u_0-0", Success(images=(blob("a"),)))
    written = await finish(running)
    assert len(given) == 2
    assert all(len(ids) == length for ids, length in given)
    assert PROMPT + written.token_ids == written.context


def test_half_a_character_at_the_end_is_not_lost():
    detokenizer = Detokenizer(decode)
    assert detokenizer.feed([*b"ab", 0xC3]) == "ab"
    assert detokenizer.close() == "\ufffd"


async def test_a_replayed_text_gives_the_same_rollout_and_posts_only_open_requests(build, tmp_path):
    texts, queue = CompletionStore(tmp_path), Queue()
    began = dataclasses.replace(build(f"{search('x')} and {search('y')} ö", queue=queue), texts=texts)
    running = asyncio.create_task(began.run(PROMPT))
    await queue.seen("u_0-0", "u_0-1")
    queue.answer("u_0-0", Success(images=(blob("a"),)))
    queue.answer("u_0-1", Success(images=(blob("b"),)))
    written = await finish(running)

    class Joined(Queue):
        reattach = Queue.post

    known = written.document.images[0].outcome
    joined = Joined()
    again = dataclasses.replace(
        began,
        generate=replay(texts.load("u_0"), ()),
        client=ResumeClient(joined, [known]),
        scorer=Judge(),
        texts=None,
        replayed=True,
    )
    running = asyncio.create_task(again.run(PROMPT))
    await joined.seen("u_0-1")
    joined.answer("u_0-1", Success(images=(blob("b"),)))
    replayed = await finish(running)
    assert list(joined.requests) == ["u_0-1"]
    assert (replayed.document, replayed.score) == (written.document, written.score)
    assert (replayed.token_ids, replayed.log_probs) == (written.token_ids, written.log_probs)
    assert (replayed.versions, replayed.segments) == (written.versions, written.segments)
    scored = restored(PROMPT, texts.load("u_0"), written.document, written.score, ())
    assert (scored.token_ids, scored.log_probs, scored.reward) == (
        written.token_ids,
        written.log_probs,
        written.reward,
    )


async def test_a_text_that_ran_out_of_time_is_replayed_to_its_cut(build, tmp_path):
    texts, queue = CompletionStore(tmp_path), Queue()
    model = Model(f"One {search('x')} two", gate_at=1)
    began = dataclasses.replace(build(model=model, queue=queue, timeout_s=0.5), texts=texts)
    running = asyncio.create_task(began.run(PROMPT))
    await queue.seen("u_0-0")
    queue.answer("u_0-0", Success(images=(blob("a"),)))
    written = await finish(running)
    saved = texts.load("u_0")
    parts = {"generate": replay(saved, ()), "replayed": True, "client": Queue(down=True), "texts": None}
    replayed = await dataclasses.replace(began, **parts).run(PROMPT)
    assert (replayed.token_ids, replayed.out_of_time) == (written.token_ids, True)
    scored = restored(PROMPT, saved, written.document, written.score, ())
    assert (scored.token_ids, scored.out_of_time) == (written.token_ids, True)


async def test_a_replayed_text_has_effective_versions(build, tmp_path):
    texts = CompletionStore(tmp_path)
    await dataclasses.replace(build("Só texto."), texts=texts).run(PROMPT)  # by weights of steps 0 and 1
    segment = await replay(texts.load("u_0"), (0,))(PROMPT, 100, 0)
    assert segment.version == (-1, 0)


async def test_a_text_that_cannot_be_saved_does_not_fail_the_rollout(build, tmp_path, caplog):
    (tmp_path / "texts").write_text("a file where a folder should be")
    written = await dataclasses.replace(build("x"), texts=CompletionStore(tmp_path)).run(PROMPT)
    assert written.reward == 1.0
    assert "was not saved" in caplog.text


async def test_a_text_on_a_disk_that_hangs_does_not_hold_the_rollout(build, monkeypatch, caplog):
    monkeypatch.setattr("policy.rollout.rollout.SAVE_S", 0.05)
    hung = threading.Event()

    class Hanging:
        def save(self, rollout_id, text):
            hung.wait(PATIENCE_S)

    try:
        written = await dataclasses.replace(build("x"), texts=Hanging()).run(PROMPT)
    finally:
        hung.set()
    assert written.reward == 1.0
    assert "u_0 was not saved: not written in 0.05 s" in caplog.text
