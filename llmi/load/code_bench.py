"""`llmi bench code`: latency and throughput of charts in the jail, and in a cold interpreter for each.

The cold interpreter imports the same four libraries for each chart, as the released code of LLM-I does.
Invariant: both draw, crop and return the same chart as PNG; they alternate within one run, so that other load
on the machine affects both.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from coordinator.console.stages import Step
from coordinator.host.hardware import detect
from llmi.load.spread import Spread
from llmi.load.targets import Target
from workers.errors import ModelFault
from workers.process.interpreter import PYTHON
from workers.sandbox.jail_report import JailReport
from workers.sandbox.renderer import Renderer
from workers.settings import CodeSettings

CHART = "plt.plot([1, 3, 2])"
EMPTY = "pass"
COLD = f"""
import sys
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
{CHART}
plt.savefig(sys.stdout.buffer, format="png", bbox_inches="tight")
"""
PNG = b"\x89PNG"
WARM_PER_COLD = 10  # warm charts are fast, and quantiles need many


@dataclass(frozen=True)
class Numbers:
    """Latencies in ms, throughputs in charts per second over `lanes` at once."""

    cold: Spread
    chart: Spread
    empty: Spread
    lanes: int
    cold_per_s: float
    charts_per_s: float
    held: JailReport
    wall_s: float

    @property
    def targets(self) -> list[Target]:
        return [
            Target("a chart, against a cold interpreter", self.cold.p50 / self.chart.p50, "x", at_least=10.0),
            Target("an empty job, p50", self.empty.p50, "ms", at_most=30.0),
            Target(
                f"charts per second, {self.lanes} at once, against cold interpreters",
                self.charts_per_s / self.cold_per_s,
                "x",
                at_least=4.0,
            ),
        ]

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "targets": [target.document() for target in self.targets]}


def measure(rounds: int, seconds: float, step: Step) -> Numbers:
    """`rounds` cold interpreters, each beside `WARM_PER_COLD` jobs of both kinds, then each way for `seconds`
    on every core. Raises `InfrastructureFault(SANDBOX)` where the jail does not hold.
    """
    began = time.monotonic()
    lanes = detect().cores
    settings = CodeSettings()
    renderers = [Renderer() for _ in range(lanes)]
    try:
        for number, renderer in enumerate(renderers):
            step("warming the jail", number / lanes, "")
            renderer.start(settings)
            warm_chart(renderer, settings)
        first = renderers[0]
        cold, chart, empty = [], [], []
        for number in range(rounds):
            step("one at a time", number / rounds, f"{number + 1} of {rounds}")
            cold.append(_timed(cold_chart))
            chart += [_timed(lambda: warm_chart(first, settings)) for _ in range(WARM_PER_COLD)]
            empty += [_timed(lambda: _empty(first, settings)) for _ in range(WARM_PER_COLD)]
        step(f"{lanes} cold ones at once, for {seconds:g} s", None, "")
        cold_per_s = _throughput([cold_chart] * lanes, seconds)
        step(f"{lanes} warm ones at once, for {seconds:g} s", None, "")
        charts_per_s = _throughput([lambda one=one: warm_chart(one, settings) for one in renderers], seconds)  # type: ignore[misc]
        held = first.jail
    finally:
        for renderer in renderers:
            renderer.close()
    return Numbers(
        cold=Spread.of(cold),
        chart=Spread.of(chart),
        empty=Spread.of(empty),
        lanes=lanes,
        cold_per_s=cold_per_s,
        charts_per_s=charts_per_s,
        held=held,
        wall_s=time.monotonic() - began,
    )


def cold_chart() -> bytes:
    """The chart's PNG from an interpreter of its own."""
    ended = subprocess.run([*PYTHON, "-c", COLD], capture_output=True, check=True)
    assert ended.stdout.startswith(PNG)
    return ended.stdout


def warm_chart(renderer: Renderer, settings: CodeSettings) -> bytes:
    """The chart's PNG from the jail."""
    (image,) = renderer.render(CHART, settings).images
    assert image.startswith(PNG)
    return image


def _empty(renderer: Renderer, settings: CodeSettings) -> None:
    try:
        renderer.render(EMPTY, settings)
    except ModelFault:  # expected: it drew nothing
        return
    raise AssertionError("an empty job drew something")


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _throughput(lanes: list[Callable[[], object]], seconds: float) -> float:
    """Charts per second when each lane works for `seconds`, and finishes its last one."""
    counts = [0] * len(lanes)
    began = time.perf_counter()

    def run(index: int) -> None:
        while time.perf_counter() - began < seconds:
            lanes[index]()
            counts[index] += 1

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(lanes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)
