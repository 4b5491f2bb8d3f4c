"""`llmi doctor` names the parts of a GPU run that this installation lacks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.check.doctor import cuda
from coordinator.check.doctor.cuda import Part
from coordinator.check.doctor.finding import Finding, State
from coordinator.config.settings import RAY_ENV, load

ABSENT = Part("absent", "import absent_module", "nothing", "install it")
PRESENT = Part("present", "import json", "nothing")


def examined(name: str, gpus: int, *parts: Part) -> list[Finding]:
    return list(cuda.examine(load(name), gpus, parts))


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RAY_ENV, raising=False)


def test_a_missing_part_fails_where_this_machine_would_train() -> None:
    (found,) = examined("qwen3_4b_grpo", 2, ABSENT)
    assert (found.state, found.hint) == (State.FAIL, "install it")
    assert found.detail == "ModuleNotFoundError: No module named 'absent_module'; needed for nothing"


@pytest.mark.parametrize(("name", "gpus"), [("qwen3_4b_grpo", 0), ("demo", 1)])
def test_a_missing_part_is_a_note_where_it_would_not(name: str, gpus: int) -> None:
    (found,) = examined(name, gpus, ABSENT)
    assert found.state is State.NOTE
    assert found.hint.endswith("install it")


@pytest.mark.parametrize(
    ("name", "state"), [("qwen3_4b_grpo", State.FAIL), ("qwen3_4b_published", State.NOTE)]
)
def test_cupy_fails_only_a_run_that_sends_weights_between_gpus(name: str, state: State) -> None:
    cupy = next(part for part in cuda.PARTS if part.name == "cupy")
    (found,) = examined(name, 8, replace(cupy, code="import absent_module"))
    assert found.state is state
    assert ("before a run that needs it" in found.hint) == (state is State.NOTE)


def test_the_nodes_of_a_cluster_have_their_own_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RAY_ENV, "cluster:6379")
    (found,) = examined("qwen3_4b_grpo", 2, ABSENT)
    assert found.state is State.NOTE


def test_a_cpu_run_on_a_cpu_needs_none() -> None:
    assert examined("demo", 0, ABSENT, PRESENT) == []


def test_a_part_that_can_be_imported_is_ok() -> None:
    (found,) = examined("qwen3_4b_grpo", 1, PRESENT)
    assert found.state is State.OK


def test_the_parts_of_verl_are_named() -> None:
    assert [part.name for part in cuda.PARTS] == ["torch", "flash-attn", "NCCL", "cupy"]


@pytest.mark.parametrize("part", cuda.PARTS, ids=lambda part: part.name)
def test_a_cpu_installation_lacks_each(part: Part) -> None:
    import torch

    if torch.version.cuda:
        pytest.skip("this installation is for CUDA")
    (found,) = examined("qwen3_4b_grpo", 0, part)
    assert found.state is State.NOTE
