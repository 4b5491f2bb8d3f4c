"""The plan of a node: a table of hardware, configuration and options against pools and reasons."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.config.pools import MEMORY_MB
from coordinator.config.settings import ServiceConfig
from coordinator.host.hardware import Gpu, Machine
from coordinator.scale.nodes import plan as plan_module
from coordinator.scale.nodes.plan import Plan, needs_gpu, plan
from coordinator.scale.nodes.supervisor import node_worker
from workers.errors import ConfigError
from workers.queues import QUEUES

GIB = 1024


def machine(gpus: int = 0, cores: int = 8, memory_gib: int = 64) -> Machine:
    return Machine(tuple(Gpu(f"GPU-{n}", "H100", 80 * GIB) for n in range(gpus)), cores, memory_gib * GIB)


def config(
    edit_model: str = "a/b", provider: str = "diffusers", device: str = "auto", **sections
) -> ServiceConfig:
    image = {"provider": provider, "model": "a/b", "device": device, "base_url": "http://h:1/v1"}
    tools = {"diffusion": image, "edit": {**image, "model": edit_model}, **sections.pop("tools", {})}
    return ServiceConfig.model_validate({"tools": tools, **sections})


def decided(node: Machine, settings: ServiceConfig, queues=(), role="all", lacking=None) -> Plan:
    return plan(node, settings, lacking or {}, queues, role)


def served(what: Plan) -> dict[tuple[str, ...], tuple[int, int, tuple[str, ...]]]:
    """Workers, jobs at once of each, and devices, by the queues of each pool."""
    return {p.pool.queues: (p.pool.low, p.pool.concurrency, p.devices) for p in what.pools}


NETWORK = ("search", "judge_text", "judge_image", "judge_rubric")


def test_one_model_is_held_by_one_worker_for_each_gpu():
    what = served(decided(machine(gpus=3), config()))
    assert what[("diffusion", "edit")] == (3, 1, ("GPU-0", "GPU-1", "GPU-2"))


def test_two_models_take_gpus_in_turn():
    what = served(decided(machine(gpus=3), config(edit_model="c/d")))
    assert what[("diffusion",)] == (2, 1, ("GPU-0", "GPU-2"))
    assert what[("edit",)] == (1, 1, ("GPU-1",))


def test_one_gpu_holds_two_models():
    assert served(decided(machine(gpus=1), config(edit_model="c/d")))[("diffusion", "edit")] == (
        1,
        1,
        ("GPU-0",),
    )


def test_one_wanted_queue_takes_every_gpu():
    what = served(decided(machine(gpus=2), config(edit_model="c/d"), queues=["edit"]))
    assert what == {("edit",): (2, 1, ("GPU-0", "GPU-1"))}


def test_the_other_queues_have_the_cores_that_are_left():
    what = served(decided(machine(gpus=2, cores=8), config()))
    assert what[("code",)] == (1, 5, ())
    assert what[NETWORK] == (1, 16, ())
    assert what[("evaluate",)] == (1, 4, ())


@pytest.mark.parametrize(
    ("cores", "memory_gib", "processes"), [(1, 64, 1), (2, 64, 2), (64, 64, 51), (8, 1, 1)]
)
def test_code_takes_every_core_as_far_as_memory_reaches(cores, memory_gib, processes):
    what = served(decided(machine(cores=cores, memory_gib=memory_gib), config(), queues=["code"]))
    assert what == {("code",): (1, processes, ())}


def test_models_at_an_endpoint_need_no_gpu():
    pools = [{"queues": ["diffusion", "edit"], "concurrency": 8}]
    what = decided(machine(gpus=2), config(provider="openai", workers={"pools": pools}))
    assert served(what)[("diffusion", "edit")] == (1, 8, ())


def test_a_search_provider_that_holds_a_model_needs_a_gpu(monkeypatch):
    """Regression: the settings of a search have no device."""
    settings = config()
    provider = SimpleNamespace(holds_model=True, settings=settings.tools.search)
    monkeypatch.setattr(plan_module, "_provider", lambda queue, config: provider)
    assert needs_gpu("search", settings)


def test_a_model_that_is_to_run_on_the_cpu_does_so_on_a_node_with_gpus_too():
    what = served(decided(machine(gpus=2), config(device="cpu")))
    assert what[("diffusion", "edit")] == (1, 1, ())


def test_two_models_on_the_cpu_have_a_process_each():
    what = served(decided(machine(cores=8), config(device="cpu", edit_model="c/d")))
    assert what[("diffusion",)] == what[("edit",)] == (1, 1, ())
    assert what[("code",)] == (1, 5, ())


def test_searches_of_the_web_are_apart_from_judges():
    what = served(decided(machine(), config(tools={"search": {"provider": "serpapi"}})))
    assert what[("search",)] == what[("judge_text", "judge_image", "judge_rubric")] == (1, 16, ())
    assert NETWORK not in what


def test_the_configuration_says_how_many_network_jobs_run_at_once():
    pools = [{"queues": ["search", "judge_text"], "concurrency": 256}]
    assert served(decided(machine(), config(workers={"pools": pools})))[NETWORK] == (1, 256, ())


def test_without_a_gpu_its_queues_are_left_out_with_the_reason():
    what = decided(machine(), config())
    assert set(what.left_out) == {"diffusion", "edit"}
    assert "tools.diffusion.device" in what.left_out["diffusion"]
    assert what.queues == ("search", "code", "judge_text", "judge_image", "judge_rubric", "evaluate")


def test_roles_part_the_queues():
    gpu, cpu = (decided(machine(gpus=1), config(), role=role) for role in ("gpu", "cpu"))
    assert gpu.queues == ("diffusion", "edit")
    assert {*gpu.queues, *cpu.queues} == set(QUEUES)


@pytest.mark.parametrize(
    ("node", "settings", "queues", "role", "said"),
    [
        (machine(), config(), [], "gpu", "--role gpu: no GPU is found here"),
        (machine(gpus=1), config(provider="openai"), [], "gpu", "no queue can be served here"),
        (machine(), config(), ["code", "cook"], "all", "no queue 'cook'; the queues are search, "),
        (machine(), config(), ["code", "diffusion"], "all", "--queues: diffusion: needs a GPU"),
        (machine(gpus=1), config(), ["diffusion"], "cpu", "--queues: diffusion: .*--role cpu"),
    ],
)
def test_an_impossible_plan_is_refused_with_a_hint(node, settings, queues, role, said):
    with pytest.raises(ConfigError, match=said):
        decided(node, settings, queues, role)


def test_a_queue_that_lacks_something_is_left_out_unless_it_was_named():
    lacking = {"search": "set the environment variable SERP_API_KEY"}
    assert decided(machine(), config(), lacking=lacking).left_out["search"] == lacking["search"]
    with pytest.raises(ConfigError, match="--queues: search: set the environment variable"):
        decided(machine(), config(), queues=["search"], lacking=lacking)


images = st.builds(
    lambda provider, device, model: {
        "provider": provider, "device": device, "model": model, "base_url": "http://h:1/v1"
    },
    st.sampled_from(["diffusers", "openai", "qwen_server"]),
    st.sampled_from(["auto", "cpu", "cuda"]),
    st.sampled_from(["a/b", "c/d"]),
)  # fmt: skip


@given(
    node=st.builds(machine, st.integers(0, 9), st.integers(1, 128), st.integers(1, 2048)),
    settings=st.builds(config, tools=st.fixed_dictionaries({"diffusion": images, "edit": images})),
    queues=st.sets(st.sampled_from(sorted(QUEUES))),
    role=st.sampled_from(["all", "gpu", "cpu"]),
    lacking=st.sets(st.sampled_from(sorted(QUEUES))),
)
def test_every_queue_is_served_or_named_and_no_gpu_given_twice(node, settings, queues, role, lacking):
    reasons = dict.fromkeys(lacking, "a key is missing")
    try:
        what = decided(node, settings, sorted(queues), role, reasons)
    except ConfigError:  # refused as a whole: the tables above say when
        return
    in_pools = [queue for planned in what.pools for queue in planned.pool.queues]
    assert sorted([*in_pools, *what.left_out]) == sorted(queues or QUEUES)
    assert not (queues and what.left_out)
    devices = [device for planned in what.pools for device in planned.devices]
    assert len(devices) == len(set(devices))
    assert set(devices) <= {gpu.device for gpu in node.gpus}
    for planned in what.pools:
        assert planned.pool.low == planned.pool.high == max(1, len(planned.devices))
        assert any(needs_gpu(queue, settings) for queue in planned.pool.queues) == bool(planned.devices)
    assert Plan.model_validate_json(what.model_dump_json()) == what


@pytest.mark.parametrize(("stated", "limit"), [(None, MEMORY_MB), (700, 700), (0, 0)])
def test_the_memory_limit_of_processes_is_the_configured_one(tmp_path, stated, limit):
    """Regression: a node's workers had no limit at all."""
    pools = [{"queues": ["code"], **({} if stated is None else {"memory_mb": stated})}]
    settings = config(workers={"pools": pools})
    [planned] = decided(machine(), settings, queues=("code",)).pools
    worker = node_worker([planned], tmp_path / "config.json", tmp_path, "node")(planned.pool, "code-1")
    assert planned.pool.limit_mb == worker._memory_mb == limit
