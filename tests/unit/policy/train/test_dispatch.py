"""Prompts go to the rollout process with the fewest groups in flight."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.train.dispatch import FAILED_S, GroupsByProcess, LeastLoadedManager, assign

PROCESSES = 3


@given(st.integers(1, 9), st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_no_process_gets_two_prompts_more_than_another_when_none_ends(
    processes: int, batches: list[int]
) -> None:
    counts, first = [0] * processes, 0
    for prompts in batches:
        chosen = assign(prompts, counts, first)
        assert len(chosen) == prompts
        for process in chosen:
            counts[process] += 1
        assert max(counts) - min(counts) <= 1
        first = (chosen[-1] + 1) % processes


@given(st.lists(st.integers(0, 40), min_size=1, max_size=9), st.integers(1, 60), st.integers(0, 8))
def test_every_prompt_goes_to_a_process_with_the_fewest_groups(
    in_flight: list[int], prompts: int, first: int
) -> None:
    counts = list(in_flight)
    for process in assign(prompts, in_flight, first % len(in_flight)):
        assert counts[process] == min(counts)
        counts[process] += 1


def test_idle_processes_get_single_prompts_in_turn() -> None:
    first, got = 0, []
    for _ in range(6):
        got += assign(1, [0, 0, 0], first)
        first = (got[-1] + 1) % 3
    assert got == [0, 1, 2, 0, 1, 2]


def test_a_process_with_rollouts_that_raise_gets_no_more_than_its_share() -> None:
    """24 groups in flight for a minute; those of process 0 fail at once, the others take 20 s."""
    groups, open_ = GroupsByProcess(), dict[str, tuple[int, int]]()  # process, and when submitted
    got, number = Counter[int](), itertools.count()
    for second in range(60):
        failed = {uid for uid, (process, _) in open_.items() if process == 0}
        groups.failed(failed, second)
        open_ = {uid: at for uid, at in open_.items() if uid not in failed and second - at[1] < 20}
        new = [f"u{next(number)}" for _ in range(24 - len(open_))]
        if new:
            chosen = groups.assign(new, 3, dict.fromkeys(open_, "running"), second)
            open_ |= {uid: (process, second) for uid, process in zip(new, chosen, strict=True)}
            got.update(chosen)
    assert got[0] <= min(got[1], got[2])


def test_a_failed_group_counts_for_a_while_and_a_finished_one_does_not() -> None:
    groups = GroupsByProcess()
    assert groups.assign(["a", "b"], 2, {}, 0.0) == [0, 1]
    assert groups.assign(["c"], 2, {"a": "failure", "b": "finished"}, 1.0) == [0], "not dropped yet"
    groups.failed({"a", "unknown"}, 2.0)
    assert groups.assign(["d", "e"], 2, {"b": "finished", "c": "finished"}, 3.0) == [1, 0]
    assert groups.assign(["f"], 2, {"d": "finished", "e": "finished"}, 3.0) == [1]
    assert groups.assign(["g"], 2, {}, 3.0 + FAILED_S) == [0]


@pytest.fixture(scope="module")
def spreading() -> Iterator[LeastLoadedManager]:
    """A manager as verl makes it, with verl's transfer queue and three stub processes that end their groups
    when the test says so."""
    import ray
    import transfer_queue as tq
    from omegaconf import OmegaConf

    ray.init(num_cpus=2, include_dashboard=False, configure_logging=False)
    tq.init(OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": 1}}}))

    @ray.remote(num_cpus=0)
    class Process:
        def __init__(self, *_: Any) -> None:
            self.uids: list[str] = []

        async def generate_sequences(self, batch: Any) -> None:
            self.uids += list(batch["uid"])

        async def seen(self) -> list[str]:
            return self.uids

    class Manager(LeastLoadedManager):
        def __init__(self, **options: Any):
            super().__init__(**options)
            self.agent_loop_workers_class = Process

    agent = {"num_workers": PROCESSES}
    config = OmegaConf.create({"actor_rollout_ref": {"rollout": {"agent": agent}, "model": {}}})
    yield Manager.create(config=config, llm_client=None, teacher_client=None, reward_loop_worker_handles=None)
    tq.close()
    ray.shutdown()


def submit(manager: LeastLoadedManager, *uids: str) -> None:
    """Register and dispatch prompts of training as verl's trainer does."""
    import torch
    import transfer_queue as tq
    from verl.utils import tensordict_utils as tu

    tags = [{"is_prompt": True, "status": "pending", "global_steps": 3} for _ in uids]
    tq.kv_batch_put(keys=list(uids), partition_id="train", tags=tags)
    lengths = [torch.arange(length) for length in range(1, len(uids) + 1)]
    nested = torch.nested.as_nested_tensor(lengths, layout=torch.jagged)  # as verl's own batches hold
    batch = tu.get_tensordict({"index": torch.arange(len(uids)), "nested": nested}, {})
    tu.assign_non_tensor_stack(batch, "uid", list(uids))
    tu.assign_non_tensor_data(batch, "global_steps", 3)
    manager.generate_sequences(batch)


def end(status: str, *uids: str) -> None:
    """End groups as verl's rollout process does."""
    import transfer_queue as tq

    tq.kv_batch_put(keys=list(uids), partition_id="train", tags=[{"status": status} for _ in uids])


def seen(manager: LeastLoadedManager) -> list[list[str]]:
    import ray

    return ray.get([process.seen.remote() for process in manager.agent_loop_workers])


@pytest.mark.heavy
def test_a_slow_process_gets_only_as_many_groups_as_it_ends(spreading: LeastLoadedManager) -> None:
    import transfer_queue as tq

    for n in range(12):  # process 0 ends nothing
        submit(spreading, f"single-{n}")
        for uids in seen(spreading)[1:]:
            if f"single-{n}" in uids:
                end("finished" if n % 2 else "failure", f"single-{n}")
    slow, *others = seen(spreading)
    assert slow == ["single-0"]
    assert [len(uids) for uids in others] == [6, 5]

    submit(spreading, *(f"many-{n}" for n in range(5)))
    assert [len(uids) for uids in seen(spreading)] == [2, 8, 7], "one to the slow one, two to each other"

    tq.kv_clear(keys=[uid for uids in seen(spreading) for uid in uids], partition_id="train")
    submit(spreading, *(f"last-{n}" for n in range(6)))
    new = Counter(at for at, uids in enumerate(seen(spreading)) for uid in uids if uid.startswith("last"))
    assert new == {0: 2, 1: 2, 2: 2}, "groups that verl has removed are not in flight"
    every = [uid for uids in seen(spreading) for uid in uids]
    assert len(set(every)) == len(every) == 12 + 5 + 6


class TwoRows:
    """The rows of two prompts, as `policy.data.verl_dataset.InterleavedDataset` returns them."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, at: int) -> dict[str, Any]:
        import torch

        return {"raw_prompt": [{"role": "user", "content": "q"}], "index": at, "visit": 0,
                "dummy_tensor": torch.zeros(1)}  # fmt: skip


@pytest.mark.heavy
def test_an_evaluation_is_in_verls_transfer_queue_and_not_among_the_groups_of_training(
    spreading: LeastLoadedManager,
) -> None:
    import transfer_queue as tq
    from verl.trainer.ppo.v1.replay_buffer import ReplayBufferAsync
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    from policy.train.evaluation.documents import Rows, discard, take_ended
    from policy.train.evaluation.documents import submit as evaluate

    before = len([uid for uids in seen(spreading) for uid in uids])
    first, second = evaluate(Rows(TwoRows()).take(), 4, spreading)
    assert len([uid for uids in seen(spreading) for uid in uids]) == before + 2
    assert take_ended([first, second]) == []
    # As verl's rollout process writes: one scored sample, and one that was masked.
    numbers = {"reward_extra_info": {"reward": 0.5, "terms/L": 0.25}}
    tag = {"status": "success", "global_steps": 4, "min_global_steps": 4, "max_global_steps": 6}
    fields = list_of_dict_to_tensordict([{"extra_fields": numbers, "uid": first}])
    tq.kv_batch_put(keys=[f"{first}_0_0"], fields=fields, tags=[tag], partition_id="val")
    for uid in (first, second):
        tq.kv_put(key=uid, partition_id="val", tag={"status": "finished"})

    buffer = ReplayBufferAsync(
        trainer_mode="separate_async", trainer_config={}, max_off_policy_threshold=3,
        max_off_policy_strategy="drop", sampler_kwargs={},
    )  # fmt: skip
    tq.kv_clear(keys=list((tq.kv_list("train") or {}).get("train", {})), partition_id="train")
    assert buffer.get_sampleable_count(5, "train") == 0

    ended = {one.uid: one for one in take_ended([first, second])}
    (scored,) = ended[first].scored
    assert (scored.info["reward"], scored.oldest, scored.newest) == (0.5, 4, 6)
    assert (ended[first].rollouts, ended[second].scored, ended[second].failed) == ((f"{first}_0",), (), False)
    assert not (tq.kv_list("val") or {}).get("val")

    evaluate(Rows(TwoRows()).take(), 4, spreading)
    discard()
    assert not (tq.kv_list("val") or {}).get("val")


@pytest.mark.heavy
def test_documents_of_an_evaluation_do_not_count_as_groups(spreading: LeastLoadedManager) -> None:
    import transfer_queue as tq

    from policy.train.evaluation.documents import Rows, discard
    from policy.train.evaluation.documents import submit as evaluate

    if keys := list((tq.kv_list("train") or {}).get("train", {})):
        tq.kv_clear(keys=keys, partition_id="train")
    documents = {uid for _ in range(PROCESSES) for uid in evaluate(Rows(TwoRows()).take(), 4, spreading)}
    slow, *others = (documents.intersection(uids) for uids in seen(spreading))
    assert [len(uids) for uids in (slow, *others)] == [2] * PROCESSES
    for uid in set.union(*others):
        tq.kv_put(key=uid, partition_id="val", tag={"status": "finished"})
    submit(spreading, *(f"beside-{n}" for n in range(PROCESSES)))
    new = [[uid for uid in uids if uid.startswith("beside")] for uids in seen(spreading)]
    assert [len(uids) for uids in new] == [1] * PROCESSES, "two open documents of a process are no groups"
    discard()
