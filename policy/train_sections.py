"""Parts of `train` that are off by default: LoRA, KL, the filter of groups without signal, the choice of
prompts, trackers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from workers.settings import Settings

SECRETS = ("KEY", "TOKEN", "PASSWORD", "SECRET", "CREDENTIALS")  # ends of names of variables
TrackerName = Literal["wandb", "tensorboard", "mlflow", "swanlab"]


class LoraSettings(Settings):
    """Train low-rank adapters instead of all weights."""

    rank: int = Field(default=0, ge=0)
    """Rank of the adapters; 0 trains all weights."""
    alpha: int = Field(default=32, ge=1)
    """The output of an adapter is scaled by `alpha / rank`."""
    targets: str | tuple[str, ...] = "all-linear"
    """Modules that get an adapter: names such as `[q_proj, v_proj]`, a regular expression, or `all-linear`.
    """
    merge: bool = True
    """Send the generators whole weights with the adapters merged into them. `false` sends the adapters alone,
    which verl can only do on GPUs with `sync` and `colocate_async`."""


class KlSettings(Settings):
    """A penalty on the distance to the initial model. With LoRA that is the model without its adapters;
    without, a copy of it is kept in the machine's memory.
    """

    form: Literal["none", "loss", "reward"] = "none"
    """`loss` adds it to the loss of each token, as in GRPO; `reward` subtracts it from the reward, before the
    advantage. None, as published."""
    coef: float = Field(default=0.001, gt=0)
    """Weight of the penalty."""
    estimator: Literal["kl", "abs", "mse", "low_var_kl"] = "low_var_kl"
    """How it is estimated from the log-probabilities; the names are verl's (k1, its absolute value, k2, k3).
    `kl` is refused with `form: loss`, where its gradient has mean 0."""


class FilterSettings(Settings):
    """Replace groups that give no gradient (DAPO's dynamic sampling)."""

    enable: bool = False
    """Drop and replace each group whose valid samples all have the same reward. A batch then has only groups
    with a signal, so that its gradient is larger and a step takes longer."""
    max_batches: float = Field(default=10.0, gt=0)
    """Batches of such groups that a step may replace before the run ends with an error. A policy without any
    signal left would generate for ever. 10 as in DAPO."""


class CurriculumSettings(Settings):
    """Choose prompts by how much the rewards in their groups differed."""

    enable: bool = False
    """After a first pass over the data, read prompts with different rewards more often than others. It needs
    `epochs` of at least 2: an epoch is as many reads as there are prompts. Off: each prompt once an epoch, in
    verl's order, as published."""
    floor: float = Field(default=0.2, gt=0, le=1)
    """Share of the reads that is uniform over all prompts."""
    half_life: float = Field(default=1.0, gt=0)
    """Epochs in which the results of a prompt lose half of their weight, because the policy changes. Then a
    prompt without a signal is tried again."""


def secret_names(verl: Mapping[str, object], above: str = "") -> list[str]:
    """The variables of `train.verl` that hold a secret, by dotted name: below a section `env_vars`."""
    found: list[str] = []
    for key, value in verl.items():
        name = f"{above}.{key}" if above else key
        if isinstance(value, Mapping):
            found += secret_names(value, name)
        elif "env_vars" in name.split(".") and name.upper().endswith(SECRETS):
            found.append(name)
    return found
