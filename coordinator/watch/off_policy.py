"""How stale the samples of a run are: the metrics of its steps, for Prometheus and the page. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from coordinator.watch.summary import first_and_last
from evaluation.pages.run_page import Table
from policy.train.gradient.metrics import CLIPPED, EFFECTIVE


@dataclass(frozen=True)
class Measure:
    """A metric of verl's: its name on the page and in Prometheus."""

    metric: str
    name: str
    gauge: str
    text: str


MEASURES = (
    Measure(
        "training/off_policy/trajectory_staleness/mean",
        "weight updates since a sample was written",
        "llmi_staleness_updates",
        "Weight updates between writing a sample and training on it, mean of the last step.",
    ),
    Measure(
        EFFECTIVE,
        "effective sample size, share of the tokens",
        "llmi_effective_sample_size",
        "Effective sample size of the last step's importance ratios, as a share of its tokens.",
    ),
    Measure(
        CLIPPED,
        "tokens with a ratio that was cut",
        "llmi_clipped_share",
        "Share of the last step's tokens with an importance ratio that was truncated or clipped.",
    ),
    Measure(
        "rollout_corr/kl",
        "KL from the sampler to the policy",
        "llmi_sampler_kl",
        "Mean log-ratio of the sampler to the policy over the last step's tokens.",
    ),
)


def gauges(step: Mapping[str, JsonValue]) -> Iterator[tuple[Measure, float]]:
    """The values that the metrics of a step have."""
    for measure in MEASURES:
        value = step.get(measure.metric)
        if isinstance(value, int | float):
            yield measure, value


def tables(steps: Sequence[Mapping[str, JsonValue]]) -> list[Table]:
    """One table with the first and the last fifth of the steps; none without a value."""
    values: dict[str, list[float]] = {}
    for step in steps:
        for measure, value in gauges(step):
            values.setdefault(measure.name, []).append(value)
    rows = [[name, *(f"{mean:.4g}" for mean in first_and_last(found))] for name, found in values.items()]
    return [Table("Stale samples", ["mean of a step", "first fifth", "last fifth"], rows)] if rows else []
