"""Evaluations while training: when one is due, what is read of it, and its metrics and ledger entries, on a
simulated transfer queue.
"""

from __future__ import annotations

import json
import math
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import NonTensorData, NonTensorStack

from policy.document import Task
from policy.ledger.reader import close_open, read_ledger
from policy.ledger.writer import LedgerWriter
from policy.train.evaluation.result import Result, Scored
from policy.train.evaluation.schedule import Schedule

PROMPTS = 3


def test_the_first_version_every_so_many_and_the_last_are_due() -> None:
    schedule = Schedule(every=4, last=10)
    assert [version for version in range(11) if schedule.due(version)] == [0, 4, 8, 10]


def test_one_that_is_due_while_another_is_open_is_skipped_and_counted() -> None:
    schedule = Schedule(every=2, last=9)
    assert not schedule.start(2, open_=True)
    assert not schedule.start(3, open_=True)
    assert schedule.skipped == 1
    assert schedule.start(4, open_=False)
    assert not schedule.start(9, open_=True)
    assert schedule.skipped == 1, "the last version is evaluated after the last step"


@pytest.mark.parametrize(
    ("version", "done", "due"),
    [
        (0, [], True),  # a new run
        (6, [0, 4], False),
        (6, [0], True),  # that of version 4 was interrupted
        (6, [0, 6], False),  # so it was done again with the weights of a checkpoint
        (8, [0, 4], True),  # the run stopped before it was submitted
        (10, [0, 4, 8], True),
        (10, [0, 4, 8, 10], False),
    ],
)
def test_a_resumed_run_repeats_an_evaluation_without_a_result(version, done, due) -> None:
    assert Schedule(every=4, last=10).due_at_start(version, done) is due


@given(st.integers(1, 7), st.integers(1, 40), st.data())
def test_no_version_is_evaluated_twice_and_every_due_one_is_skipped_or_evaluated(every, last, data) -> None:
    schedule, started, open_ = Schedule(every, last), [], False
    if schedule.due_at_start(0, []):
        started.append(0)
        open_ = True
    for version in range(1, last + 1):
        open_ = open_ and data.draw(st.booleans())
        if schedule.start(version, open_=open_):
            started.append(version)
            open_ = True
    due = [version for version in range(last) if schedule.due(version)]
    assert len(set(started)) == len(started)
    assert len([version for version in started if version < last]) + schedule.skipped == len(due)


def scored(prompt: str, reward: float, *, oldest: int = 2, newest: int = 3, **more: float) -> Scored:
    return Scored(prompt, {"reward": reward, **more}, oldest, newest)


def test_the_error_counts_prompts_and_not_their_samples() -> None:
    result = Result(2, scored=[scored("a", 0.2), scored("a", 0.4), scored("b", 0.9)], masked=1)
    found = result.metrics(5, skipped=1)
    assert found["val/reward/mean"] == pytest.approx((0.3 + 0.9) / 2)
    assert found["val/reward/stderr"] == pytest.approx(math.sqrt(2 * 0.3**2) / math.sqrt(2))
    assert {name: found[f"val/{name}"] for name in ("version", "lag", "documents", "masked", "skipped")} == {
        "version": 2, "lag": 3, "documents": 3, "masked": 1, "skipped": 1,
    }  # fmt: skip


def test_numbers_and_versions_are_those_of_the_scored_documents() -> None:
    result = Result(2, scored=[
        scored("a", 0.5, oldest=1, newest=2, **{"terms/L": 0.5, "document/images": 2.0}),
        scored("b", 0.7, oldest=2, newest=4, **{"document/images": 4.0}),
    ])  # fmt: skip
    found = result.metrics(2, skipped=0)
    assert (found["val/version/oldest"], found["val/version/newest"]) == (1, 4)
    assert (found["val/terms/L"], found["val/document/images"]) == (0.5, 3.0)


def test_an_evaluation_without_a_reward_has_no_mean() -> None:
    found = Result(0, masked=2, failed=1).metrics(1, skipped=0)
    assert (found["val/masked"], found["val/failed"], found["val/documents"]) == (2, 1, 0)
    assert "val/reward/mean" not in found


class Store:
    """Simulates verl's transfer queue, and the rollout processes that write to it."""

    def __init__(self):
        self.tags: dict[str, dict] = {}
        self.numbers: dict[str, dict] = {}
        self.submitted: list = []  # batches

    def kv_batch_put(self, *, keys, partition_id, tags):
        assert partition_id == "val"
        self.tags |= dict(zip(keys, tags, strict=True))

    def kv_list(self, partition_id):
        return {partition_id: self.tags} if self.tags else {}

    def kv_batch_get(self, *, keys, partition_id, select_fields):
        assert (partition_id, select_fields) == ("val", ["extra_fields"])
        held = [NonTensorData({"reward_extra_info": self.numbers[key]}) for key in keys]
        return {"extra_fields": NonTensorStack(*held)}

    def kv_clear(self, *, keys, partition_id):
        for key in keys:
            del self.tags[key]  # each is there

    def generate_sequences(self, batch):
        self.submitted.append(batch)

    def uids(self) -> list[str]:
        return list(self.submitted[-1]["uid"])

    def end(self, uid: str, *rewards: float, status: str = "finished", versions=(0, 1)) -> None:
        """End a prompt with a trajectory for each reward; a masked sample has none."""
        for session, reward in enumerate(rewards):
            key = f"{uid}_{session}_0"
            self.tags[key] = {"min_global_steps": versions[0], "max_global_steps": versions[1]}
            self.numbers[key] = {"reward": reward, "terms/M": reward}
        self.tags[uid] = {"is_prompt": True, "status": status}


@pytest.fixture
def store(monkeypatch):
    from policy.train import document_metrics
    from policy.train.evaluation import documents

    store = Store()
    monkeypatch.setattr(documents, "tq", store)
    monkeypatch.setattr(document_metrics, "tq", store)
    return store


class Dataset:
    """Like `policy.data.verl_dataset.InterleavedDataset`."""

    def __len__(self):
        return PROMPTS

    def __getitem__(self, at):
        return {"raw_prompt": [{"role": "user", "content": "q"}], "index": at, "visit": 7,
                "dummy_tensor": torch.zeros(1)}  # fmt: skip


class AtOnce:
    """An executor that runs a call when it is submitted."""

    def submit(self, call) -> Future:
        future: Future = Future()
        try:
            future.set_result(call())
        except OSError as error:
            future.set_exception(error)
        return future

    def shutdown(self, **_) -> None:
        pass


def read_rows():
    """The rows of the dataset, which are read again at once."""
    from policy.train.evaluation.documents import Rows

    rows = Rows(Dataset())
    rows._next.result(10)
    rows.close()
    rows._thread = AtOnce()
    return rows


@pytest.fixture
def evaluation(store, tmp_path):
    """`evaluation(every=…, last=…)`: the evaluations of a run with three test prompts."""
    from policy.train.evaluation.evaluation import Evaluation

    def make(*, every: int = 2, last: int = 4, samples: int = 1, timeout_s: float = 60.0):
        rows = read_rows()
        ledger = LedgerWriter(tmp_path, "evaluation")
        made = Evaluation(
            Schedule(every, last), rows, ledger, manager=store, samples=samples, timeout_s=timeout_s
        )
        made.rows = rows
        return made

    return make


@pytest.fixture
def started(evaluation):
    """`started(…)`: the same, with the evaluation of version 0 submitted."""

    def make(**options: object):
        made = evaluation(**options)
        made.start(0, [])
        made.before_batch(0)
        return made

    return make


def test_documents_are_rollouts_of_verls_validation_with_ids_of_their_own(store, started) -> None:
    started()
    (batch,) = store.submitted
    assert batch["validate"] is True
    assert batch["global_steps"] == 0
    assert list(batch["index"]) == [0, 1, 2]
    assert list(batch["visit"]) == [0, 0, 0], "the same seeds in every evaluation"
    assert len(set(store.uids())) == PROMPTS
    assert all(uid.startswith("eval-0-") and "_" not in uid for uid in store.uids())
    assert store.tags.keys() == set(store.uids())


def test_what_has_ended_is_read_in_later_steps_and_the_last_step_of_it_has_the_metrics(
    store, started
) -> None:
    evaluated = started()
    first, second, third = store.uids()
    assert evaluated.collect(1) == {}
    store.end(first, 0.25)
    store.end(second, versions=(0, 2))
    assert evaluated.collect(1) == {}
    assert store.tags.keys() == {third}, "what was read is removed"
    store.end(third, 0.75, versions=(1, 2))
    found = evaluated.collect(3)
    assert (found["val/reward/mean"], found["val/documents"], found["val/masked"]) == (0.5, 2, 1)
    assert (found["val/version"], found["val/lag"]) == (0, 3)
    assert (found["val/version/oldest"], found["val/version/newest"]) == (0, 2)
    assert store.tags == {}
    assert evaluated.collect(4) == {}


def test_a_failed_prompt_is_counted_and_the_run_goes_on(store, started, tmp_path) -> None:
    evaluated = started(samples=2)
    first, second, third = store.uids()
    rollouts = LedgerWriter(tmp_path, "rollout")
    for uid in store.uids():
        for session in range(2):
            rollouts.started(f"{uid}_{session}", Task(question="q"), step=0)
    rollouts.rollout_ended(f"{third}_1", "masked")
    rollouts.rollout_raised(f"{second}_1", "ValueError: boom")
    store.end(first, 0.5, 0.7)
    store.end(second, 0.9, status="failure")
    store.end(third, 0.1)
    found = evaluated.collect(1)
    assert (found["val/documents"], found["val/failed"], found["val/masked"]) == (4, 1, 1)
    rollouts.close()
    ledger = read_ledger(tmp_path)
    assert ledger.rollouts == {}
    assert ledger.violations == []
    assert {name.partition("-")[0] for name in ledger.evaluated} == {"eval"}
    states = [
        ledger.evaluated[f"{uid}_{session}"].state for uid in (first, second, third) for session in (0, 1)
    ]
    assert states == ["evaluated", "evaluated", "evaluated", "failed", "evaluated", "masked"]


def test_an_open_evaluation_is_never_joined_by_another(store, started) -> None:
    evaluated = started(every=1, last=9)
    evaluated.before_batch(1)
    evaluated.before_batch(2)
    assert len(store.submitted) == 1
    for uid in store.uids():
        store.end(uid, 0.5)
    assert evaluated.collect(3)["val/skipped"] == 2
    evaluated.before_batch(3)
    assert [batch["global_steps"] for batch in store.submitted] == [0, 3]


def test_the_last_evaluation_is_waited_for_and_one_that_it_kept_waiting_follows(store, evaluation) -> None:
    evaluated = evaluation(every=3, last=4)
    evaluated.before_batch(3)  # open when step 4, the last, has ended
    plain = store.generate_sequences

    def end_at_once(batch):
        plain(batch)
        for uid in store.uids():
            store.end(uid, 0.75)

    store.generate_sequences = end_at_once
    for uid in store.uids():
        store.end(uid, 0.25)
    before, last = evaluated.finish(4)
    assert (before["val/version"], before["val/reward/mean"]) == (3, 0.25)
    assert (last["val/version"], last["val/reward/mean"]) == (4, 0.75)


def test_the_wait_at_the_end_has_one_bound_and_keeps_what_has_ended(store, evaluation, tmp_path) -> None:
    evaluated = evaluation(timeout_s=0.0)
    evaluated.before_batch(2)
    first, *others = store.uids()
    writer = LedgerWriter(tmp_path, "rollout")
    writer.started(f"{others[0]}_0", Task(question="q"), step=4)
    writer.close()
    store.end(first, 0.5)
    found, last = evaluated.finish(4)
    assert (found["val/documents"], found["val/unfinished"], found["val/reward/mean"]) == (1, 2, 0.5)
    assert (last["val/version"], last["val/documents"], last["val/unfinished"]) == (4, 0, PROMPTS)
    assert len(store.submitted) == 1, "there was no time for that of the last version"
    assert close_open(tmp_path).evaluated[f"{others[0]}_0"].state == "cancelled"


def broken() -> Future:
    """A read of rows that failed."""
    future: Future = Future()
    future.set_exception(OSError("the store is away"))
    return future


def test_rows_that_cannot_be_read_delay_an_evaluation_and_do_not_end_the_run(store, evaluation) -> None:
    evaluated = evaluation(every=1, last=9)
    evaluated.rows._next = broken()
    evaluated.start(0, [])
    evaluated.before_batch(0)
    assert store.submitted == []
    evaluated.before_batch(1)
    assert [batch["global_steps"] for batch in store.submitted] == [1]
    for uid in store.uids():
        store.end(uid, 0.5)
    assert evaluated.collect(2)["val/skipped"] == 1, "version 1 was due as well"


def test_rows_that_cannot_be_read_are_not_read_again_at_once(evaluation, caplog) -> None:
    rows = evaluation().rows
    rows._read = broken().result
    rows._next = broken()
    assert [rows.ready() for _ in range(3)] == [False] * 3
    assert len(caplog.records) == 1


def test_an_evaluation_that_was_never_submitted_has_a_result_and_no_second_try(store, evaluation) -> None:
    evaluated = evaluation(every=2, last=4, samples=2, timeout_s=0.05)
    evaluated.rows._read = broken().result
    evaluated.rows._next = broken()
    evaluated.start(0, [])
    for version in range(4):
        evaluated.before_batch(version)
    (found,) = evaluated.finish(4)
    assert (found["val/version"], found["val/documents"], found["val/unfinished"]) == (4, 0, 2 * PROMPTS)
    assert found["val/skipped"] == 2, "versions 0 and 2"
    assert store.submitted == []


def test_a_resumed_run_evaluates_nothing_that_it_has(store, evaluation) -> None:
    evaluated = evaluation(every=2, last=4)
    evaluated.start(4, [0, 2, 4])
    evaluated.before_batch(4)
    assert evaluated.finish(4) == []
    assert store.submitted == []


def test_what_a_checkpoint_of_the_queue_held_is_discarded(store) -> None:
    from policy.train.evaluation.documents import discard

    discard()
    store.end("eval-4-abc-0", 0.5)
    discard()
    assert store.tags == {}


@pytest.fixture
def sync_trainer():
    """A synchronous trainer with generators that record what is done with them. `sync_trainer(every)`."""
    from omegaconf import OmegaConf

    from policy.train.trainer import ResumableSync

    def make(every: int):
        made = object.__new__(ResumableSync)
        made.config = OmegaConf.create({"trainer": {"evaluate_every": every}})
        made.curr_step_profile, made.timing_raw, made.global_steps = False, {}, 1
        made.calls = []
        note = lambda name: lambda *_: made.calls.append(name)  # noqa: E731
        made.checkpoint_manager = SimpleNamespace(
            **{name: note(name) for name in ("abort_replicas", "sleep_replicas", "update_weights",
                                             "resume_generation_replicas")}
        )  # fmt: skip
        made.llm_server_manager = SimpleNamespace(get_client=lambda client_cls=None: client_cls)
        return made

    return make


def test_a_synchronous_run_interrupts_documents_before_the_generators_sleep(sync_trainer) -> None:
    from verl.workers.rollout.llm_server import FullyAsyncLLMServerClient

    trainer = sync_trainer(2)
    trainer.on_sample_end()
    trainer.on_step_end()
    assert trainer.calls == [
        "abort_replicas",
        "sleep_replicas",
        "update_weights",
        "resume_generation_replicas",
    ]
    assert trainer.get_llm_client() is FullyAsyncLLMServerClient, "it continues interrupted texts"


def test_without_evaluations_a_synchronous_run_is_verls_own(sync_trainer) -> None:
    trainer = sync_trainer(0)
    trainer.on_sample_end()
    trainer.on_step_end()
    assert trainer.calls == ["sleep_replicas", "update_weights"]
    assert trainer.get_llm_client() is None


@pytest.fixture
def evaluating(store, tmp_path, monkeypatch):
    """`evaluating(every, …)`: the part of a trainer that evaluates, in the loop of a trainer that submits its
    prompts and trains. `calls`: what it did; `logged`: its metrics.
    """
    from omegaconf import OmegaConf

    from policy.train.evaluation.trainer import Evaluating

    class Trainer:
        def on_train_begin(self) -> None:
            self.calls.append("begin")

        def on_sample_begin(self) -> None:
            self.calls.append("sample")

        def step(self, metrics: dict, timing_raw: dict) -> None:
            self.calls.append("prompts")
            self.on_sample_begin()
            for uid in store.uids() if store.submitted else ():
                if uid in store.tags:
                    store.end(uid, 0.5)

        def fit(self, agent_loop_manager) -> None:
            self.agent_loop_manager = agent_loop_manager
            self.global_steps += 1
            self.on_train_begin()
            while self.global_steps <= min(self.total_training_steps, self.stops):
                metrics: dict = {}
                self.step(metrics, {})
                self.logger.log(data=metrics, step=self.global_steps)
                self.global_steps += 1

    class Both(Evaluating, Trainer):
        pass

    submit = store.generate_sequences

    def make(every: int, *, steps: int = 4, per_epoch: int = 2, epochs: int = 9, begins: int = 0):
        made = object.__new__(Both)
        kwargs = {"sampler_kwargs": {"run": str(tmp_path)}}
        made.config = OmegaConf.create({
            "trainer": {"evaluate_every": every, "evaluate_timeout_s": 0.05, "total_epochs": epochs,
                        "v1": {"sampler": kwargs}},
            "actor_rollout_ref": {"rollout": {"val_kwargs": {"n": 1}}},
        })  # fmt: skip
        made.total_training_steps, made.steps_per_epoch, made.global_steps = steps, per_epoch, begins
        made.stops = per_epoch * epochs
        made.calls, made.logged = [], []
        made.logger = SimpleNamespace(log=lambda data, step: made.logged.append((step, data)))
        made.evaluation_rows = read_rows()
        monkeypatch.setattr(
            store, "generate_sequences", lambda batch: (made.calls.append("evaluation"), submit(batch))
        )
        return made

    return make


def evaluations_of(trainer) -> list[tuple[int, int, int]]:
    """Step, version and skipped evaluations of each result."""
    return [(step, data["val/version"], data["val/skipped"]) for step, data in trainer.logged if data]


def test_the_prompts_of_a_step_are_submitted_before_an_evaluation(store, evaluating) -> None:
    trainer = evaluating(2)
    trainer.fit(store)
    assert trainer.calls[:4] == ["begin", "prompts", "sample", "evaluation"]
    assert [batch["global_steps"] for batch in store.submitted] == [0, 2, 4]


def test_a_run_that_its_epochs_end_evaluates_its_last_version(store, evaluating) -> None:
    trainer = evaluating(4, steps=40, per_epoch=5, epochs=1)
    trainer.fit(store)
    assert [batch["global_steps"] for batch in store.submitted] == [0, 4, 5]
    assert trainer.logged[-1][0] == trainer.logged[-1][1]["val/version"] == 5


def test_a_resumed_run_counts_on_and_repeats_what_did_not_end(store, evaluating, tmp_path) -> None:
    rows = [
        {"step": 1, "data": {"val/version": 0, "val/unfinished": 0, "val/skipped": 1}},
        {"step": 2, "data": {"val/version": 2, "val/unfinished": 1, "val/skipped": 3}},
    ]
    (tmp_path / "metrics.past.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    trainer = evaluating(2, begins=2)
    trainer.fit(store)
    assert evaluations_of(trainer)[0] == (3, 2, 3)


def test_a_run_without_evaluations_discards_those_of_its_checkpoint(store, evaluating) -> None:
    store.end("eval-4-abc-0", 0.5)
    trainer = evaluating(0)
    trainer.fit(store)
    assert store.tags == {}
    assert evaluations_of(trainer) == []
