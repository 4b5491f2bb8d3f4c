"""verl's checkpoint engine "tcp": the trainer's first rank sends its weights to every rollout rank over
ZeroMQ.

verl 0.9.1's engines for separate trainer and rollout all need an accelerator (nccl, nixl, mooncake, hccl);
use those on a GPU cluster. Selected by `checkpoint_engine.backend=tcp` with
`custom_backend_module=policy.cpu.weights`. Remove this when verl has an engine that works over gloo:
`tests/unit/policy/cpu/test_verl_cpu.py::test_verl_has_no_weight_engine_for_a_cpu`.

Invariants:
- weights are sent as safetensors, so that receiving them executes no code;
- every wait ends after `timeout_s` on both sides: a dead receiver fails the step and does not block the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import torch
import zmq
from safetensors.torch import load, save
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry


@CheckpointEngineRegistry.register("tcp")
class TcpCheckpointEngine(CheckpointEngine):
    """Sends all weights in one message; meant for models of megabytes, not gigabytes."""

    def __init__(self, bucket_size: int, is_master: bool = False, timeout_s: float = 300.0):
        self.is_master = is_master
        self.timeout_s = timeout_s
        self._socket: zmq.Socket | None = None
        self._address = ""
        self._receivers = 0
        if not is_master:
            # verl passes the weights on to vLLM's worker over sockets of this context, without a time-out.
            for option in (zmq.RCVTIMEO, zmq.SNDTIMEO):
                zmq.Context.instance().setsockopt(option, int(timeout_s * 1000))

    def prepare(self) -> dict[str, Any]:
        if not self.is_master:
            return {}
        import ray

        host = ray.util.get_node_ip_address().strip("[]")
        self._socket = self._open(zmq.REP)
        port = self._socket.bind_to_random_port(f"tcp://{host}")
        return {"address": f"tcp://{host}:{port}"}

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[dict]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        address = next(entry["address"] for entry in metadata if entry)

        def same_for(ranks: int) -> dict[str, list[Any]]:
            return {"address": [address] * ranks, "receivers": [rollout_world_size] * ranks}

        return same_for(actor_wg_world_size), same_for(rollout_world_size)

    def init_process_group(self, address: str, receivers: int) -> None:
        self._address, self._receivers = address, receivers

    def finalize(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def send_weights(
        self, weights: Iterable[tuple[str, torch.Tensor]], global_steps: int | None = None
    ) -> dict[str, float]:
        """Raises `TimeoutError` when a rollout rank does not fetch the weights in time."""
        # Every rank must iterate over all weights: gathering a sharded tensor is a collective.
        named = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights}
        if self._socket is None:
            return {}
        data = save(named)
        served = 0
        try:
            for served in range(self._receivers):  # noqa: B007 - used in the message below
                await asyncio.to_thread(self._socket.recv)
                await asyncio.to_thread(self._socket.send, data)
        except zmq.Again as error:
            self.finalize()
            late = self._receivers - served
            raise TimeoutError(f"{late} rollout ranks fetched no weights in {self.timeout_s} s") from error
        return {"weight_sync/bytes": float(len(data))}

    async def receive_weights(
        self, global_steps: int | None = None
    ) -> AsyncIterator[tuple[str, torch.Tensor]]:
        """Raises `TimeoutError` when the trainer does not answer in time."""
        socket = self._open(zmq.REQ)
        try:
            socket.connect(self._address)
            await asyncio.to_thread(socket.send, b"weights")
            data = await asyncio.to_thread(socket.recv)
        except zmq.Again as error:
            raise TimeoutError(f"the trainer sent no weights in {self.timeout_s} s") from error
        finally:
            socket.close()
        for name, tensor in load(data).items():
            yield name, tensor

    def _open(self, kind: int) -> zmq.Socket:
        socket: zmq.Socket = zmq.Context.instance().socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        for option in (zmq.RCVTIMEO, zmq.SNDTIMEO):
            socket.setsockopt(option, int(self.timeout_s * 1000))
        return socket
