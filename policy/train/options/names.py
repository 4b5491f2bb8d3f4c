"""Names that verl looks up only when a step is computed (verl 0.9.1).

Invariants:
- verl is imported only when the names are checked;
- modules of `external_lib` from outside this project are imported first, since they may register more names.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator
from typing import Any

from policy.train.gradient.refusals import LOSSES, MEASURED
from workers.text.names import near_names

BYPASS_LOSSES = ("bypass_mode", f"{MEASURED}bypass_mode")
WEIGHTS = ("token", "sequence")
KL = ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3")
KL_NAMES = (*KL, *(f"{name}+" for name in KL))


def name_problems(config: Any) -> Iterator[str]:
    """A problem for each name that verl does not have, or that its V1 trainer cannot use."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY
    from verl.trainer.ppo.rollout_corr_helper import SUPPORTED_ROLLOUT_RS_OPTIONS

    external = config.actor_rollout_ref.model.external_lib or ()
    modules = [external] if isinstance(external, str) else external
    outside = [name for name in modules if not name.startswith("policy.")]
    for module in ("policy.train.gradient.advantage", LOSSES, *outside):
        try:
            importlib.import_module(module)
        except ImportError as error:
            yield f"actor_rollout_ref.model.external_lib: {module} cannot be imported: {error}"
            return
    actor, algorithm = config.actor_rollout_ref.actor, config.algorithm
    correction, loss = algorithm.rollout_correction, actor.policy_loss.loss_mode
    if loss in BYPASS_LOSSES:
        yield (
            f"actor_rollout_ref.actor.policy_loss.loss_mode: {loss} gets its correction from verl's older "
            "trainer only; set train.old_log_prob: rollout"
        )
    else:
        losses = sorted(set(POLICY_LOSS_REGISTRY) - set(BYPASS_LOSSES))
        yield from _unknown("actor_rollout_ref.actor.policy_loss.loss_mode", loss, losses)
    if algorithm.adv_estimator == "remax":
        yield (
            "algorithm.adv_estimator: remax needs a greedy rollout of each prompt, which the V1 trainer does "
            "not generate; choose another estimator"
        )
    else:
        estimators = sorted(set(ADV_ESTIMATOR_REGISTRY) - {"remax"})
        yield from _unknown("algorithm.adv_estimator", algorithm.adv_estimator, estimators)
    if correction.rollout_is:
        yield from _unknown("algorithm.rollout_correction.rollout_is", correction.rollout_is, WEIGHTS)
    for criterion in str(correction.rollout_rs).split(",") if correction.rollout_rs else ():
        known = sorted(SUPPORTED_ROLLOUT_RS_OPTIONS)
        yield from _unknown("algorithm.rollout_correction.rollout_rs", criterion.strip(), known)
    if actor.use_kl_loss:
        yield from _unknown("actor_rollout_ref.actor.kl_loss_type", actor.kl_loss_type, KL_NAMES)
    if algorithm.use_kl_in_reward:
        yield from _unknown("algorithm.kl_penalty", algorithm.kl_penalty, KL_NAMES)


def _unknown(option: str, name: str, known: Collection[str]) -> Iterator[str]:
    if name not in known:
        near = near_names(str(name), known)
        hint = f"did you mean {near[0]}?" if near else f"valid: {', '.join(known)}"
        yield f"{option}: verl does not know {name!r}; {hint}"
