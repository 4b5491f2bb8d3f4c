"""Injects the faults into the running system, and undoes them.

Invariants: faults of different targets overlap, those of one target wait for each other; every fault that
lasts is undone, also when the injector is cancelled; it touches only what the trial started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import psutil
import redis

from coordinator.host.redis_server import EmbeddedRedis
from llmi.load.chaos.faults import Fault, Kind
from llmi.load.testbed.provider import Provider
from llmi.load.testbed.proxy import Proxy
from llmi.load.testbed.workers import WorkersUnderTest
from workers.broker.keys import held_key
from workers.queues import QUEUES
from workers.redis_client import connect_redis
from workers.redis_script import Script

DELAY_S = 0.1  # of each packet
FULL_BYTES = 512  # largest file on the "full" disk: smaller than any picture
REFUSALS = (("maxmemory", "1"), ("min-replicas-to-write", "1"))  # "0" undoes either
UNDONE_S = 60.0  # every fault has ended by then

EXPIRE_LEASES = Script("llmi.load.chaos", "expire_leases")


class FaultInjector:
    """Call `run` and cancel it, then `wait_undone`. `done` counts the faults carried out."""

    def __init__(self, workers: WorkersUnderTest, server: EmbeddedRedis, proxy: Proxy, provider: Provider):
        self.done: Counter[Kind] = Counter()
        self._workers = workers
        self._server = server
        self._proxy = proxy
        self._provider = provider
        self._locks = {name: asyncio.Lock() for name in ("redis", "proxy", "provider")}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, timeline: Iterable[Fault], on_start: Callable[[Fault], None]) -> None:
        """Start one fault after the other, and call `on_start` with each."""
        for fault in timeline:
            await asyncio.sleep(fault.pause_s)
            on_start(fault)
            task = asyncio.create_task(self.carry_out(fault))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def wait_undone(self) -> None:
        """Return when every fault is undone. Raises the exception of a fault that failed."""
        tasks = set(self._tasks)
        if not tasks:
            return
        done, late = await asyncio.wait(tasks, timeout=UNDONE_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for task in done:
            task.result()

    async def carry_out(self, fault: Fault) -> None:
        """One fault from its start to its end."""
        match fault.kind:
            case Kind.KILL_CHILD:
                child = self._workers.child(fault.pick)
                if child is None:
                    return
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            case Kind.KILL_WORKER:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._workers.pick(fault.pick).pid, signal.SIGKILL)
            case Kind.KILL_NODE:
                _signal_group(self._workers.pick(fault.pick).pid, signal.SIGKILL)
            case Kind.FREEZE | Kind.FREEZE_AND_KILL:
                await self._freeze(fault)
            case Kind.RESTART_REDIS:
                async with self._locks["redis"]:
                    os.kill(self._server.pid, signal.SIGKILL)
                    await asyncio.to_thread(self._server.start)
            case Kind.REFUSE:
                async with self._locks["redis"]:
                    await self._refuse(fault)
            case Kind.CUT:
                self._proxy.drop_connections()
            case Kind.DELAY | Kind.SILENCE:
                async with self._locks["proxy"]:
                    await self._hold_packets(fault)
            case Kind.FULL_DISK:
                with _files_at_most(FULL_BYTES, self._workers.pick(fault.pick).pid):
                    await asyncio.sleep(fault.lasts_s)
            case Kind.EXPIRE_LEASES:
                try:
                    await asyncio.to_thread(self._expire)
                except redis.RedisError:
                    return  # Redis is starting
            case Kind.PROVIDER_DOWN | Kind.PROVIDER_HANGS:
                async with self._locks["provider"]:
                    await self._without_provider(fault)
        self.done[fault.kind] += 1

    async def _freeze(self, fault: Fault) -> None:
        pid = self._workers.pick(fault.pick).pid
        _signal_group(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            _signal_group(pid, signal.SIGCONT if fault.kind is Kind.FREEZE else signal.SIGKILL)

    async def _hold_packets(self, fault: Fault) -> None:
        try:
            if fault.kind is Kind.DELAY:
                self._proxy.delay_s = DELAY_S
            else:
                self._proxy.stall()
            await asyncio.sleep(fault.lasts_s)
        finally:
            self._proxy.delay_s = 0.0
            self._proxy.resume()

    async def _without_provider(self, fault: Fault) -> None:
        if fault.kind is Kind.PROVIDER_DOWN:
            self._provider.kill()
        else:
            self._provider.pause()
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            if fault.kind is Kind.PROVIDER_DOWN:
                await asyncio.to_thread(self._provider.start)
            else:
                self._provider.resume()

    async def _refuse(self, fault: Fault) -> None:
        name, value = REFUSALS[int(fault.pick * len(REFUSALS))]
        await asyncio.to_thread(self._configure, name, value)
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            await asyncio.to_thread(self._configure, name, "0")

    def _configure(self, name: str, value: str) -> None:
        with connect_redis(self._server.url) as client:
            client.config_set(name, value)

    def _expire(self) -> None:
        with connect_redis(self._server.url) as client:
            EXPIRE_LEASES(client, [held_key(queue) for queue in QUEUES])


def _signal_group(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signum)  # a worker has a session of its own


@contextlib.contextmanager
def _files_at_most(size: int, pid: int) -> Iterator[None]:
    """Limit the files of the worker `pid` and its children to `size` bytes.

    It acts as a full disk does, with EFBIG in place of ENOSPC.
    """
    before: list[tuple[psutil.Process, tuple[int, int]]] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        worker = psutil.Process(pid)
        for process in (worker, *worker.children()):
            with contextlib.suppress(psutil.NoSuchProcess):
                limits = process.rlimit(psutil.RLIMIT_FSIZE)
                process.rlimit(psutil.RLIMIT_FSIZE, (size, limits[1]))
                before.append((process, limits))
    try:
        yield
    finally:
        for process, limits in before:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.rlimit(psutil.RLIMIT_FSIZE, limits)
