"""One trial of `llmi chaos`: load on a running system, faults injected meanwhile, then the audit.

Invariant: the audit starts when every fault is undone and every rollout has ended.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from coordinator.console.stages import Step
from coordinator.console.terminal import Notify
from llmi.load.chaos.audit import Rule, audit
from llmi.load.chaos.faults import Fault, Kind, timeline
from llmi.load.chaos.injector import FaultInjector
from llmi.load.chaos.leftovers import gather, outcomes, unreferenced
from llmi.load.testbed import clocks
from llmi.load.testbed.groups import GroupLoad, Sample
from llmi.load.testbed.system import System, running_system
from workers.storage.blobs import BlobStore

POLL_S = 0.25
END_S = 600.0  # after the last request was posted; deadlines end every request before


@dataclass(frozen=True)
class Options:
    """At least `requests` are posted, for at least `seconds`, while at least `faults` start."""

    requests: int = 2000
    workers: int = 4
    seconds: float = 0.0
    faults: int = 2 * len(Kind)
    seed: int = 1


@dataclass(frozen=True)
class Result:
    """`outcomes` by kind and by cause or success; `again`: requests claimed more than once; `starts`: claims
    of all requests; `unreferenced`: blobs that no outcome names.
    """

    wanted: Options
    seconds: float
    faults: dict[str, int]
    clocks: bool  # whether workers had wrong wall clocks for the whole trial
    restarts: int
    requests: int
    rollouts: int
    trained: int
    outcomes: dict[str, dict[str, int]]
    again: int
    starts: int
    unreferenced: int
    rules: list[Rule]

    @property
    def kept(self) -> bool:
        return not any(rule.violations for rule in self.rules)


async def run(options: Options, folder: Path, step: Step, notify: Notify) -> Result:
    """Run a trial in `folder`, which is empty. `step` shows progress, `notify` prints a line for each fault.

    Raises `InfrastructureFault` when the workers do not start, `TimeoutError` when the rollouts do not end.
    """
    began = time.monotonic()
    async with running_system(folder, options.workers, step, proxied=True) as system:
        assert system.proxy is not None
        config, batch = system.config, list[Sample]()
        injector = FaultInjector(system.workers, system.server, system.proxy, system.provider)
        async with GroupLoad(config.queue, config.judges, folder, options.seed, batch.append) as load:
            await _inject_faults(options, load, injector, system, step, notify)
        step("auditing", None, "")
        seconds = time.monotonic() - began
        return await asyncio.to_thread(_result, options, folder, load, batch, injector, system, seconds)


async def _inject_faults(
    options: Options, load: GroupLoad, injector: FaultInjector, system: System, step: Step, notify: Notify
) -> None:
    """Return when all of `options` has happened, every fault is undone and every rollout has ended."""
    began = time.monotonic()
    started = 0

    def show(fault: Fault) -> None:
        nonlocal started
        started += 1
        lasts = f" ({fault.lasts_s:.1f} s)" if fault.lasts_s else ""
        notify(f"{time.monotonic() - began:6.1f} s  fault {started}: {fault.kind}{lasts}")

    def progress() -> None:
        words = f"{load.posted:,} of {options.requests:,} requests posted, {load.in_flight} in flight"
        step("posting requests among faults", min(1.0, load.posted / options.requests), words)

    work = asyncio.create_task(load.run())
    faults = asyncio.create_task(injector.run(timeline(options.seed), show))
    try:
        while not work.done():
            enough = load.posted >= options.requests and started >= options.faults
            if enough and time.monotonic() - began >= options.seconds:
                break
            if faults.done():
                faults.result()
            await asyncio.to_thread(system.workers.replace_dead)
            progress()
            await asyncio.sleep(POLL_S)
        load.finish()
        faults.cancel()
        await asyncio.gather(faults, return_exceptions=True)
        await injector.wait_undone()
        notify("no more faults; waiting for the requests in flight")
        async with asyncio.timeout(END_S):
            while not work.done():
                await asyncio.to_thread(system.workers.replace_dead)
                progress()
                await asyncio.wait([work], timeout=POLL_S)
        await work
    finally:
        for task in (work, faults):
            task.cancel()
        await asyncio.gather(work, faults, return_exceptions=True)
        await injector.wait_undone()


def _result(
    options: Options,
    folder: Path,
    load: GroupLoad,
    batch: list[Sample],
    injector: FaultInjector,
    system: System,
    seconds: float,
) -> Result:
    blobs = system.config.blobs.url
    evidence = gather(folder, batch, system.server.url, BlobStore(blobs), system.workers.replace_dead)
    starts = evidence.starts.values()
    return Result(
        wanted=options,
        seconds=seconds,
        faults={str(kind): count for kind, count in sorted(injector.done.items())},
        clocks=clocks.available(),
        restarts=system.workers.restarts,
        requests=len(evidence.ledger.requests),
        rollouts=load.rollouts,
        trained=len(batch),
        outcomes=outcomes(evidence.ledger),
        again=sum(count > 1 for count in starts),
        starts=sum(starts),
        unreferenced=unreferenced(evidence.ledger, Path(blobs)),
        rules=audit(evidence),
    )
