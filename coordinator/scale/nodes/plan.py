"""The plan of a node that joins the queues: its workers, from hardware, configuration and options. Pure.

Invariants:
- Every wanted queue is served by exactly one pool, or left out with the reason; two image models may share
  the GPUs of a node with several.
- No GPU is given to two workers.
- A queue that the user named and that cannot be served here is an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from coordinator.config.pools import PoolSettings
from coordinator.config.settings import ServiceConfig
from coordinator.host.hardware import Machine
from workers.errors import ConfigError
from workers.providers import registry as providers
from workers.providers.provider import Provider
from workers.queues import QUEUES
from workers.settings import Settings

Role = Literal["gpu", "cpu", "all"]
IMAGES = ("diffusion", "edit")
CODE = "code"
SEARCH = "search"
MEMORY_SHARE = 0.8  # of the node's memory that code may use in the worst case
THREADS = 16  # concurrency of a network queue without a configured pool
WAITING = 4  # concurrency of evaluations; each has many requests in flight


class Planned(Settings):
    """A pool of this node, of fixed size."""

    pool: PoolSettings
    """Its queues and its workers."""
    devices: tuple[str, ...] = ()
    """One GPU for each worker, as in CUDA_VISIBLE_DEVICES; empty where they need none."""


class Plan(Settings):
    """The workers of a node."""

    pools: tuple[Planned, ...]
    """The pools of this node."""
    left_out: dict[str, str]
    """Queues that are not served here, with the reason."""

    @property
    def queues(self) -> tuple[str, ...]:
        """The served queues, in the order of the queue table."""
        served = {queue for planned in self.pools for queue in planned.pool.queues}
        return tuple(queue for queue in QUEUES if queue in served)


def plan(
    machine: Machine, config: ServiceConfig, lacking: Mapping[str, str], queues: Sequence[str], role: Role
) -> Plan:
    """Plan the workers of this node. Raises `ConfigError`.

    `lacking`: queues with incomplete settings or keys, with the problem; `queues`: those named by the user,
    none: every queue that can be served.
    """
    unknown = [queue for queue in queues if queue not in QUEUES]
    if unknown:
        raise ConfigError(f"--queues: no queue {unknown[0]!r}; the queues are {', '.join(QUEUES)}")
    if role == "gpu" and not machine.gpus:
        raise ConfigError(
            "--role gpu: no GPU is found here; check nvidia-smi and CUDA_VISIBLE_DEVICES, or join with "
            "--role cpu"
        )
    named = {queue for queue in QUEUES if queue in queues}
    wanted = [queue for queue in QUEUES if not named or queue in named]
    left_out = {queue: why for queue in wanted if (why := _why_not(queue, machine, config, lacking, role))}
    if refused := [f"--queues: {queue}: {why}" for queue, why in left_out.items() if queue in named]:
        raise ConfigError("\n".join(refused))
    served = [queue for queue in wanted if queue not in left_out]
    if not served:
        reasons = "\n".join(f"{queue}: {why}" for queue, why in left_out.items())
        raise ConfigError(f"no queue can be served here:\n{reasons}")
    return Plan(pools=_pools(machine, config, served), left_out=left_out)


def needs_gpu(queue: str, config: ServiceConfig) -> bool:
    """Whether its jobs run a model in the worker's own process, on a GPU."""
    provider = _provider(queue, config)
    if provider is None or not provider.holds_model:
        return False
    # The settings of a search have no device: a model that a search provider of another package holds.
    return getattr(provider.settings, "device", "cuda") != "cpu"


def _why_not(
    queue: str, machine: Machine, config: ServiceConfig, lacking: Mapping[str, str], role: Role
) -> str:
    """Why this node does not serve `queue`; empty when it does."""
    gpu = needs_gpu(queue, config)
    if role == "cpu" and gpu:
        return "needs a GPU, and --role cpu leaves those queues out"
    if role == "gpu" and not gpu:
        return "needs no GPU, and --role gpu leaves those queues out"
    if gpu and not machine.gpus:
        return (
            f"needs a GPU, and none is found here; let a node with one join, or set tools.{queue}.device "
            "to cpu"
        )
    return lacking.get(queue, "")


def _pools(machine: Machine, config: ServiceConfig, served: Sequence[str]) -> tuple[Planned, ...]:
    images = [queue for queue in served if queue in IMAGES]
    pools = [
        *_gpu_pools(machine, config, [queue for queue in images if needs_gpu(queue, config)]),
        *_plain_image_pools(config, [queue for queue in images if not needs_gpu(queue, config)]),
    ]
    others = [queue for queue in served if queue not in IMAGES and queue != CODE]
    if CODE in served:
        busy = sum(planned.pool.low for planned in pools) + bool(others)
        pools.append(_pool((CODE,), concurrency=_code_processes(machine, config, busy)))
    alone = [queue for queue in others if QUEUES[queue].waits or QUEUES[queue].pool == "prefork"]
    pools += [
        _pool(network, concurrency=_configured(network, config, THREADS))
        for network in _network(config, [queue for queue in others if queue not in alone])
    ]
    for queue in alone:
        default = WAITING if QUEUES[queue].waits else 1
        pools.append(_pool((queue,), concurrency=_configured((queue,), config, default)))
    return tuple(_bounded(planned, config) for planned in pools)


def _network(config: ServiceConfig, queues: Sequence[str]) -> list[tuple[str, ...]]:
    """The groups of network queues that share a process. Web searches have their own, since slow image hosts
    occupy threads and decoders.
    """
    search = _provider(SEARCH, config)
    web = [queue for queue in queues if queue == SEARCH and search and search.service()]
    rest = [queue for queue in queues if queue not in web]
    return [tuple(group) for group in (web, rest) if group]


def _bounded(planned: Planned, config: ServiceConfig) -> Planned:
    """Set the memory limit that the configuration's own pools have for these queues, if any."""
    found = [pool.memory_mb for pool in config.workers.pools
             if pool.memory_mb is not None and set(pool.queues) & set(planned.pool.queues)]  # fmt: skip
    if not found:
        return planned
    most = max(found, key=lambda mb: mb or math.inf)  # 0: no limit
    return planned.model_copy(update={"pool": planned.pool.model_copy(update={"memory_mb": most})})


def _gpu_pools(machine: Machine, config: ServiceConfig, queues: Sequence[str]) -> list[Planned]:
    """One worker for each GPU. Different models get GPUs in turn, so that no GPU holds two of them. With
    fewer GPUs than models, each worker holds all models.
    """
    devices = [gpu.device for gpu in machine.gpus]
    groups = _same_model(config, queues)
    if len(devices) < len(groups):
        groups = [tuple(queues)]
    count = len(groups)
    return [
        _pool(group, devices=tuple(devices[number::count]), gpus=1.0) for number, group in enumerate(groups)
    ]


def _plain_image_pools(config: ServiceConfig, queues: Sequence[str]) -> list[Planned]:
    """The pools of image queues without a GPU: one process for each model on the CPU; for an endpoint, the
    configured concurrency.
    """
    local = [queue for queue in queues if (provider := _provider(queue, config)) and provider.holds_model]
    remote = tuple(queue for queue in queues if queue not in local)
    pools = [_pool(group) for group in _same_model(config, local)]
    if remote:
        pools.append(_pool(remote, concurrency=_configured(remote, config, 1)))
    return pools


def _same_model(config: ServiceConfig, queues: Sequence[str]) -> list[tuple[str, ...]]:
    """Group the queues whose pipelines share weights: same model, device and dtype."""
    groups: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for queue in queues:
        provider = _provider(queue, config)
        assert provider is not None
        key = (provider.settings.model, provider.settings.device, provider.settings.dtype)
        groups[key] = (*groups.get(key, ()), queue)
    return list(groups.values())


def _code_processes(machine: Machine, config: ServiceConfig, busy: int) -> int:
    """The number of code processes: one for each core that no other worker uses, limited by memory."""
    fitting = int(machine.memory_mib * MEMORY_SHARE) // config.tools.code.memory_mb
    return max(1, min(machine.cores - busy, fitting))


def _configured(queues: Sequence[str], config: ServiceConfig, default: int) -> int:
    """The concurrency that the configuration's own pools have for these queues."""
    found = [pool.concurrency for pool in config.workers.pools if set(pool.queues) & set(queues)]
    return max(found, default=default)


def _pool(
    queues: tuple[str, ...], *, concurrency: int = 1, devices: tuple[str, ...] = (), gpus: float = 0.0
) -> Planned:
    size = len(devices) or 1
    pool = PoolSettings(queues=queues, concurrency=concurrency, low=size, high=size, gpus=gpus)
    return Planned(pool=pool, devices=devices)


def _provider(queue: str, config: ServiceConfig) -> Provider | None:
    """The provider of a queue; None for queues that have none."""
    return providers.make(queue, getattr(config.tools, queue)) if queue in providers.TOOLS else None
