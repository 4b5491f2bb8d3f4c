"""The sampler on a simulated transfer queue: what is trained on or replaced, and what the ledger records."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from policy.document import Task
from policy.ledger.reader import read_ledger
from policy.ledger.writer import LedgerWriter
from policy.resume.completions import Completion, CompletionStore
from policy.resume.plan import ResumePlan
from workers.broker.breaker import Breaker
from workers.broker.breakers import Breakers

# The number of the prompt, by group.
PROMPTS = {name: np.int64(at) for at, name in enumerate(("trained", "stale", "flat", "few", "broken"))}


class Store:
    """Simulates the key-value interface of the transfer queue."""

    def __init__(self):
        self.items: dict[str, dict[str, dict]] = {"train": {}}
        self.rewards: dict[str, float] = {}
        self.read: list[str] = []  # the trajectories whose rewards were read

    def kv_list(self, partition_id=None):
        return self.items

    def kv_clear(self, *, partition_id, keys):
        for key in keys:
            self.items[partition_id].pop(key, None)

    def kv_batch_get(self, *, keys, partition_id, select_fields):
        assert partition_id == "train"
        if select_fields == ["index"]:
            return {"index": [PROMPTS[key.split("_")[0]] for key in keys]}
        assert select_fields == ["rm_scores"]
        self.read.extend(keys)
        given = [self.rewards.get(key, float(key.split("_")[1])) for key in keys]
        return {"rm_scores": [torch.tensor([0.0, reward]) for reward in given]}

    def group(self, uid: str, status: str, sessions, *, step: int = 1) -> None:
        self.items["train"][uid] = {"is_prompt": True, "status": status, "global_steps": step}
        for session in sessions:
            self.items["train"][f"{uid}_{session}_0"] = {"status": "success", "global_steps": step}


@pytest.fixture
def store(monkeypatch):
    from verl.trainer.ppo.v1 import replay_buffer

    store = Store()
    monkeypatch.setattr(replay_buffer.tq, "kv_list", store.kv_list)
    monkeypatch.setattr(replay_buffer.tq, "kv_clear", store.kv_clear)
    monkeypatch.setattr(replay_buffer.tq, "kv_batch_get", store.kv_batch_get)
    return store


@pytest.fixture
def rollouts(tmp_path):
    writer = LedgerWriter(tmp_path, "rollout")
    yield writer
    writer.close()


@pytest.fixture
def sampler(store, tmp_path, rollouts):
    from policy.train.sampler import GroupSampler, GroupSamplerAsync

    refilled: list[int] = []

    def make(
        mode: str = "separate_async",
        *,
        stall_s: float = 30.0,
        in_order: bool = False,
        window: dict | None = None,
        pause: dict | None = None,
        saves: bool = True,
        max_no_signal: int | None = None,
    ):
        def refill(count: int) -> None:
            refilled.append(count)
            for _ in range(count):
                uid = f"new{sum(refilled)}{len(store.items['train'])}"
                store.group(uid, "finished", range(4), step=9)

        cls = GroupSampler if mode == "sync" else GroupSamplerAsync
        options = {
            "run": str(tmp_path),
            "n": 4,
            "min_valid": 2,
            "poll_s": 0.01,
            "stall_s": stall_s,
            "max_wasted": 3,
            "pause": {"share": 0.5, "for_s": 0.0, "probe_s": 0.0, "recent": 4, **(pause or {})},
            "in_order": in_order,
            "saves": saves,
            "max_no_signal": max_no_signal,
            **({"window": window} if window else {}),
        }
        made = cls(
            trainer_mode=mode,
            trainer_config=OmegaConf.create({}),
            max_off_policy_threshold=3,
            max_off_policy_strategy="drop",
            sampler_kwargs=OmegaConf.create(options),
            refill_fn=refill,
        )
        made.refilled = refilled
        return made

    return make


def states(tmp_path) -> dict[str, str | None]:
    return {name: rollout.state for name, rollout in read_ledger(tmp_path).rollouts.items()}


def validity(metrics: dict) -> dict[str, int]:
    """The metrics of that name."""
    return {name[9:]: value for name, value in metrics.items() if name.startswith("validity/")}


def started(rollouts, *names: str) -> None:
    for name in names:
        rollouts.started(name, Task(question="q"))


@pytest.mark.parametrize("mode", ["separate_async", "sync"])
def test_a_selected_group_is_trained_on_once(mode, store, sampler, rollouts, tmp_path):
    store.group("a", "finished", [0, 1, 2])
    started(rollouts, "a_0", "a_1", "a_2", "a_3")
    rollouts.rollout_ended("a_3", "masked")
    batch, metrics = sampler(mode).sample(2, "train", 1)
    assert sorted(batch.keys) == ["a_0_0", "a_1_0", "a_2_0"]
    assert validity(metrics) == {
        "n_valid": 3, "n_total": 4, "groups_stale": 0, "groups_failed": 0, "groups_too_few": 0,
        "groups_no_signal": 0,
    }  # fmt: skip
    ledger = read_ledger(tmp_path)
    assert ledger.violations == []
    assert states(tmp_path) == {"a_0": "trained", "a_1": "trained", "a_2": "trained", "a_3": "masked"}
    assert ledger.rollouts["a_0"].step == 2


@pytest.mark.parametrize("mode", ["separate_async", "sync"])
def test_the_oldest_groups_come_first_then_those_submitted_first(mode, store, sampler, rollouts):
    names = [f"u{number}" for number in range(8)]
    for name in names:
        store.items["train"][name] = {"is_prompt": True, "status": "running", "global_steps": 2}
    store.items["train"]["late"] = {"is_prompt": True, "status": "running", "global_steps": 1}
    for name in ("late", *reversed(names[1:])):  # they finish in another order than they were submitted in
        store.group(name, "finished", [1, 0], step=store.items["train"][name]["global_steps"])
    started(rollouts, *(f"{name}_{session}" for name in ("late", *names) for session in (0, 1)))
    batch, _ = sampler(mode).sample(2, "train", 4)
    assert batch.keys == [f"{name}_{session}_0" for name in ("late", "u1", "u2", "u3") for session in (0, 1)]


@pytest.mark.parametrize("in_order", [True, False])
def test_in_order_a_group_waits_for_those_before_it(in_order, store, sampler, rollouts):
    store.group("first", "running", [])
    store.group("second", "finished", [0, 1])
    started(rollouts, "first_0", "first_1", "second_0", "second_1")
    buffer = sampler(in_order=in_order)
    assert buffer.get_sampleable_count(1, "train") == (0 if in_order else 1)
    store.group("first", "finished", [0, 1])
    batch, _ = buffer.sample(1, "train", 1)
    assert batch.keys == (["first_0_0", "first_1_0"])
    assert buffer.get_sampleable_count(1, "train") == 1


def test_in_order_a_failed_group_blocks_no_other(store, sampler, rollouts):
    store.group("first", "failure", [])
    store.group("second", "finished", [0, 1])
    started(rollouts, "first_0", "second_0", "second_1")
    batch, _ = sampler(in_order=True).sample(1, "train", 1)
    assert batch.keys == ["second_0_0", "second_1_0"]


def test_groups_without_a_usable_result_are_reported_once(store, sampler, rollouts):
    store.group("failed", "failure", [])
    store.group("few", "finished", [0])
    store.group("stale", "finished", [0, 1], step=-4)
    store.group("good", "finished", [0, 1])
    started(rollouts, "failed_0", "few_0", "stale_0", "stale_1", "good_0", "good_1")
    buffer, reported = sampler(), []
    buffer.groups_failed = reported.append
    buffer.sample(1, "train", 1)
    assert [uids for uids in reported if uids] == [{"failed", "few"}]


@pytest.mark.parametrize("mode", ["separate_async", "sync"])
@pytest.mark.parametrize("left", [0, 1])
def test_a_group_with_too_few_valid_samples_is_replaced(mode, left, store, sampler, rollouts, tmp_path):
    store.group("a", "finished", range(left))
    started(rollouts, "a_0")
    buffer = sampler(mode)
    batch, metrics = buffer.sample(1, "train", 1)
    assert buffer.refilled == [1]
    assert all(key.startswith("new") for key in batch.keys)
    assert metrics["training/rollout_failure/evicted_samples"] == 1
    assert validity(metrics)["groups_too_few"] == 1
    assert states(tmp_path)["a_0"] == ("masked" if left else None)
    assert read_ledger(tmp_path).dropped["a"].step == 1


@pytest.mark.parametrize("mode", ["separate_async", "sync"])
def test_a_failed_group_is_replaced_despite_valid_samples(mode, store, sampler, rollouts, tmp_path):
    store.group("a", "failure", [0, 1, 2])
    started(rollouts, "a_0", "a_1", "a_2", "a_3")
    rollouts.rollout_raised("a_3", "ValueError: boom")
    buffer = sampler(mode)
    batch, metrics = buffer.sample(1, "train", 1)
    assert buffer.refilled == [1]
    assert validity(metrics)["groups_failed"] == 1
    assert not [key for key in batch.keys if key.startswith("a_")]
    assert {
        name: state for name, state in states(tmp_path).items() if name.startswith("a_")
    } == dict.fromkeys(("a_0", "a_1", "a_2", "a_3"), "failed")


def test_a_stale_group_is_replaced(store, sampler, rollouts, tmp_path):
    store.group("old", "finished", [0, 1], step=1)
    started(rollouts, "old_0", "old_1")
    buffer = sampler()
    _, metrics = buffer.sample(9, "train", 1)
    assert buffer.refilled == [1]
    assert validity(metrics)["groups_stale"] == 1
    assert states(tmp_path)["old_0"] == states(tmp_path)["old_1"] == "stale"


def test_waiting_for_groups_has_a_deadline(store, sampler):
    store.group("a", "running", [])
    with pytest.raises(TimeoutError, match="no group of rollouts has ended"):
        sampler(stall_s=0.1).sample(1, "train", 1)


@pytest.mark.parametrize("mode", ["separate_async", "sync"])
def test_too_many_failed_groups_end_the_run(mode, store, sampler):
    buffer = sampler(mode)

    def refill(count: int) -> None:
        for _ in range(count):
            store.group(f"x{len(buffer.refilled)}", "failure", [])
            buffer.refilled.append(1)

    buffer.refill_fn = refill
    store.group("a", "failure", [])
    with pytest.raises(RuntimeError, match="4 failed"):
        buffer.sample(1, "train", 1)


def test_dropped_groups_are_counted_per_step(store, sampler):
    store.group("broken", "failure", [])
    store.group("first", "finished", [0, 1, 2, 3])
    store.group("second", "finished", [0, 1])
    buffer = sampler()
    _, first = buffer.sample(1, "train", 1)
    _, second = buffer.sample(1, "train", 1)
    assert (first["validity/groups_failed"], second["validity/groups_failed"]) == (1, 0)
    assert (first["validity/n_valid"], second["validity/n_valid"]) == (4, 2)


def test_a_masked_sample_moves_neither_mean_nor_deviation_of_its_group(store, sampler):
    """verl's advantage is computed from the samples trained on: by hand, (r - mean) / deviation."""
    import numpy
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    rewards = {"a_0_0": 0.2, "a_1_0": 0.5, "a_2_0": 0.8}
    store.group("a", "finished", [0, 1, 2])  # a_3 was masked
    batch, _ = sampler().sample(1, "train", 1)
    scores = torch.tensor([[rewards[key]] for key in batch.keys])
    uids = numpy.array([key.split("_")[0] for key in batch.keys])
    advantages, _ = compute_grpo_outcome_advantage(scores, torch.ones_like(scores), uids)
    assert advantages.flatten().tolist() == pytest.approx([-1.0, 0.0, 1.0], abs=1e-4)


WINDOW = {"batch": 2, "max_staleness": 3, "slots": 16, "first": 4, "steps": None}


def test_the_sampler_submits_what_the_window_lacks(store, sampler):
    store.group("a", "finished", range(4))
    windowed = sampler(window=WINDOW)
    _, metrics = windowed.sample(2, "train", 2)
    assert windowed.refilled == [4]
    assert (metrics["flight/window"], metrics["flight/ready"], metrics["flight/open"]) == (4, 3, 0)


def test_the_sampler_submits_more_while_rollouts_wait_for_tools(store, sampler, monkeypatch):
    windowed = sampler(window=WINDOW)
    store.group("a", "finished", range(4))
    for uid in ("b", "c", "d", "e"):
        store.group(uid, "running", [])
    monkeypatch.setattr(windowed._feeder.watcher, "poll", lambda: (0, {}))
    windowed.sample(2, "train", 2)
    assert windowed.refilled == [1]


def test_a_group_that_failed_during_training_is_replaced_once(store, sampler, rollouts):
    started(rollouts, "bad_0")
    store.group("bad", "failure", [])
    for uid in ("a", "b"):
        store.group(uid, "finished", range(4))
    windowed = sampler(window=WINDOW)
    windowed.sample(2, "train", 2)
    # Four are to be open: the one that verl puts in the place of `bad`, and three more.
    assert sorted(windowed.refilled) == [1, 3]


def test_an_ended_group_is_replaced_without_polling_the_queues(store, sampler, monkeypatch):
    windowed = sampler(window=WINDOW)
    for uid in ("a", "b", "c", "d"):
        store.group(uid, "running", [])
    polls = iter([None, None, None])

    def poll():
        store.group("a", "finished", range(4))
        return next(polls)

    monkeypatch.setattr(windowed._feeder.watcher, "poll", poll)
    windowed.sample(2, "train", 2)
    assert windowed.refilled == [1]


def test_a_fixed_run_submits_nothing_by_itself(store, sampler):
    for uid in ("a", "b"):
        store.group(uid, "finished", range(4))
    fixed = sampler()
    _, metrics = fixed.sample(2, "train", 2)
    assert fixed.refilled == []
    assert "flight/window" not in metrics


JUDGE = ("judge_text", "openai at host:8001")


@pytest.fixture
def judge(monkeypatch):
    """A judge whose breaker is open for `judge.polls` polls; `judge.submitted`: number of groups at each."""
    from policy.admission import pause
    from workers.broker import outages

    class Judge:
        polls = 0

        def __init__(self):
            self.groups: list[str] = []
            self.submitted: list[int] = []

        def read(self, url: str) -> Breakers:
            self.polls -= 1
            if self.polls >= 0:
                self.submitted.append(len(self.groups))
            failing = Breaker(failures=5, since=90.0, failed=100.0, why="provider_down: 503", openings=1)
            return Breakers({JUDGE: failing} if self.polls >= 0 else {}, now=100.0)

    judge = Judge()
    monkeypatch.setattr(pause, "POLL_S", 0.0)
    monkeypatch.setattr(outages, "read_breakers", judge.read)
    return judge


def masked_while_down(store, buffer, judge) -> None:
    """Groups that `buffer` submits are masked while the judge is down, and valid afterwards."""

    def submit(count: int) -> None:
        for _ in range(count):
            judge.groups.append(f"x{len(judge.groups)}")
            store.group(judge.groups[-1], "finished", range(4) if judge.polls < 0 else [])

    buffer._feeder.submit = submit


@pytest.mark.parametrize("mode", ["separate_async", "sync"])
def test_an_outage_pauses_the_run_until_the_provider_is_back(mode, store, sampler, judge, tmp_path):
    buffer, judge.polls = sampler(mode), 20
    masked_while_down(store, buffer, judge)
    store.group("a", "finished", [])
    batch, metrics = buffer.sample(1, "train", 1)
    assert len(judge.groups) > 5, "it gave up, or submitted no probe group"
    assert {key.split("_")[0] for key in batch.keys} <= set(judge.groups)
    assert metrics["outage/groups_excused"] > 5
    [(began, ended)] = read_ledger(tmp_path).pauses
    assert began < ended < float("inf")


def test_the_ledger_names_the_provider_that_caused_a_pause(store, sampler, judge, tmp_path):
    buffer, judge.polls = sampler(), 3
    masked_while_down(store, buffer, judge)
    store.group("a", "finished", [])
    buffer.sample(1, "train", 1)
    lines = "".join(path.read_text() for path in (tmp_path / "ledger").glob("trainer-*"))
    assert "judge_text (openai at host:8001) has been failing since" in lines


def test_a_pause_is_no_stall_and_submits_only_probe_groups(store, sampler, judge):
    buffer, judge.polls = sampler(window=WINDOW, stall_s=0.1, pause={"probe_s": 60.0}), 40
    masked_while_down(store, buffer, judge)
    for uid in ("a", "b"):
        store.group(uid, "finished", [])
    _, metrics = buffer.sample(2, "train", 2)
    assert len(set(judge.submitted)) == 1, "groups were submitted in the pause"
    assert len(judge.groups) > judge.submitted[-1]
    assert metrics["outage/paused_s"] > 0.1


def test_masked_groups_end_the_run_without_a_provider_outage(store, sampler, judge):
    buffer, judge.polls = sampler(), 0

    def submit(count: int) -> None:
        for _ in range(count):
            store.group(f"x{len(buffer.refilled)}", "finished", [])
            buffer.refilled.append(1)

    buffer._feeder.submit = submit
    store.group("a", "finished", [])
    with pytest.raises(RuntimeError, match="4 with too few valid samples"):
        buffer.sample(1, "train", 1)


def test_a_checkpoint_is_recorded_and_texts_trained_on_are_removed(store, sampler, tmp_path):
    texts = CompletionStore(tmp_path)
    for name in ("a_0", "b_0"):
        texts.save(name, Completion(time=1.0, pieces=()))
    store.group("a", "finished", range(4))
    made = sampler()
    made.sample(2, "train", 1)
    assert texts.load("a_0")  # a run that died now would need it
    made.saved(2)
    assert (texts.load("a_0"), texts.load("b_0") is None) == (None, False)
    assert read_ledger(tmp_path).checkpoints == [2]


@pytest.mark.parametrize(("mode", "held"), [("separate_async", {"a_0", "a_2.1"}), ("sync", set())])
def test_a_checkpoint_names_the_rollouts_of_ended_groups(mode, held, store, sampler, tmp_path):
    ResumePlan(ids={"a_2": "a_2.1"}).save(tmp_path)
    made = sampler(mode)
    store.group("a", "finished", [0, 2])
    store.group("b", "running", [0])
    made.saved(2)
    assert read_ledger(tmp_path).held == {2: held}


def test_without_checkpoints_texts_are_removed_after_training(store, sampler, tmp_path):
    texts = CompletionStore(tmp_path)
    texts.save("a_0", Completion(time=1.0, pieces=()))
    store.group("a", "finished", range(4))
    sampler(saves=False).sample(2, "train", 1)
    assert texts.load("a_0") is None


def test_a_group_is_as_old_as_its_text_from_before_a_resume(store, sampler, tmp_path):
    ResumePlan(step=4, steps={"a": 2}).save(tmp_path)
    store.group("a", "finished", range(4), step=5)  # submitted again
    store.group("b", "finished", range(4), step=5)
    batch, metrics = sampler().sample(5, "train", 1)
    assert {key[0] for key in batch.keys} == {"b"}
    assert validity(metrics)["groups_stale"] == 1


@pytest.mark.parametrize("mode", ["separate_async", "colocate_async", "sync"])
def test_a_rollout_started_again_is_closed_under_its_new_id(mode, store, sampler, tmp_path):
    ResumePlan(step=1, ids={"a_1": "a_1.1"}).save(tmp_path)
    store.group("a", "finished", [0, 1], step=2)
    sampler(mode).sample(2, "train", 1)
    assert states(tmp_path) == {"a_0": "trained", "a_1.1": "trained"}


def test_a_pause_that_ends_at_a_step_start_blocks_nothing(store, sampler, judge):
    buffer, judge.polls = sampler(window=WINDOW), 1
    store.group("a", "finished", [])
    masked_while_down(store, buffer, judge)
    buffer.read_queue()
    buffer._update_pause({"a"})
    assert buffer._pause.on
    for uid in ("b", "c"):
        store.group(uid, "finished", range(4))
    buffer.sample(2, "train", 2)
    assert judge.groups, "a whole batch was ready, and the step submitted nothing"


def rewarded(store, uid: str, *rewards: float) -> None:
    """A finished group with these rewards."""
    store.group(uid, "finished", range(len(rewards)), step=1)
    store.rewards |= {f"{uid}_{session}_0": reward for session, reward in enumerate(rewards)}


@pytest.mark.parametrize("mode", ["separate_async", "colocate_async", "sync"])
def test_a_group_without_a_signal_is_replaced(mode, store, sampler, rollouts, tmp_path):
    rewarded(store, "flat", 0.5, 0.5, 0.5)
    started(rollouts, "flat_0", "flat_1", "flat_2")
    buffer = sampler(mode, max_no_signal=2)

    def refill(count: int) -> None:
        buffer.refilled.append(count)
        rewarded(store, "new", 0.5, 0.6)

    buffer._feeder.submit = refill
    batch, metrics = buffer.sample(1, "train", 1)
    assert (batch.keys, buffer.refilled) == (["new_0_0", "new_1_0"], [1])
    assert validity(metrics) == {
        "n_valid": 2, "n_total": 4, "groups_stale": 0, "groups_failed": 0, "groups_too_few": 0,
        "groups_no_signal": 1,
    }  # fmt: skip
    ledger = read_ledger(tmp_path)
    assert ledger.dropped["flat"].reason == "no_signal"
    assert {ledger.rollouts[f"flat_{session}"].state for session in range(3)} == {"masked"}


def test_groups_without_a_signal_are_trained_on_by_default(store, sampler):
    rewarded(store, "flat", 0.5, 0.5)
    batch, _ = sampler().sample(1, "train", 1)
    assert batch.keys == ["flat_0_0", "flat_1_0"]
    assert store.read == []


@pytest.mark.parametrize("rewards", [(0.5, 0.5 + 1e-4), (0.0, 1.0, 1.0)])
def test_a_small_spread_is_a_signal(rewards, store, sampler):
    rewarded(store, "a", *rewards)
    buffer = sampler(max_no_signal=2)
    buffer.sample(1, "train", 1)
    assert buffer.refilled == []


def test_the_rewards_of_a_group_are_read_once(store, sampler):
    rewarded(store, "a", 0.1, 0.2)
    rewarded(store, "b", 0.1, 0.2)
    buffer = sampler(max_no_signal=2)
    for _ in range(3):
        assert buffer.get_sampleable_count(1, "train") == 2
    assert sorted(store.read) == ["a_0_0", "a_1_0", "b_0_0", "b_1_0"]


def test_a_group_with_too_few_samples_counts_as_that(store, sampler):
    rewarded(store, "few", 0.5)
    rewarded(store, "a", 0.1, 0.2)
    _, metrics = sampler(max_no_signal=2).sample(1, "train", 1)
    assert (validity(metrics)["groups_too_few"], validity(metrics)["groups_no_signal"]) == (1, 0)


@pytest.mark.parametrize("mode", ["separate_async", "sync"])
def test_a_policy_without_any_signal_ends_the_run(mode, store, sampler):
    buffer = sampler(mode, max_no_signal=5)  # more than the 3 groups that may fail

    def refill(count: int) -> None:
        for _ in range(count):
            rewarded(store, f"x{len(buffer.refilled)}", 1.0, 1.0)
            buffer.refilled.append(1)

    buffer._feeder.submit = refill
    refill(1)
    with pytest.raises(RuntimeError, match="6 with the same reward for all samples"):
        buffer.sample(1, "train", 1)


def test_groups_without_a_signal_do_not_pause_a_run(store, sampler, judge, tmp_path):
    judge.polls = 9
    buffer = sampler(max_no_signal=9)
    for uid in ("x", "y", "z"):
        rewarded(store, uid, 1.0, 1.0)
    rewarded(store, "a", 0.1, 0.2)
    buffer._feeder.submit = judge.groups.append
    buffer.sample(1, "train", 1)
    assert judge.groups == [3]
    assert read_ledger(tmp_path).pauses == []


class Results:
    """Collects what a sampler records."""

    def __init__(self):
        self.steps = 0
        self.groups: dict[int, list[float]] = {}

    def start_step(self) -> None:
        self.steps += 1

    def record(self, prompt: int, rewards: list[float]) -> None:
        assert prompt not in self.groups, "a group was recorded twice"
        self.groups[prompt] = rewards


@pytest.mark.parametrize("filters", [False, True])
def test_valid_samples_are_results_of_their_prompt_however_their_group_ended(filters, store, sampler):
    """Samples without a trajectory, which infrastructure masked, are none. Rewards are read once."""
    store.group("trained", "finished", [0, 1, 2], step=9)
    store.group("stale", "finished", [0, 1], step=1)
    store.group("flat", "finished", range(4), step=9)
    store.group("few", "finished", [3], step=9)
    store.group("broken", "failure", [2], step=9)
    store.group("lost", "finished", [], step=9)
    store.rewards = {f"flat_{session}_0": 0.25 for session in range(4)}
    made = sampler(max_no_signal=9 if filters else None)
    made.results = Results()
    made._max_wasted = 9
    batch, _ = made.sample(9, "train", 2 - filters)
    assert {key.split("_")[0] for key in batch.keys} == ({"trained"} if filters else {"trained", "flat"})
    assert made.results.steps == 1
    assert made.results.groups == {0: [0, 1, 2], 1: [0, 1], 2: [0.25] * 4, 3: [3], 4: [2]}
    assert len(store.read) == len(set(store.read))
