"""verl's asynchronous trainers with one difference: the sampler says when a prompt is submitted (verl 0.9.1).

Registered as `admitting_separate_async` and `admitting_colocate_async` by being imported. Stock verl submits
one batch at the beginning of each step, so that the number of groups under way never changes; here
`policy.sampler` submits, through the `refill_fn` that verl gives it, as `policy.admission` decides.
"""

from __future__ import annotations

from verl.trainer.ppo.v1 import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync


class _Admitting:
    def prepare_step(self) -> dict:
        """Submit nothing: `SiblingSamplerAsync.sample` does."""
        return {}


@register_trainer("admitting_separate_async")
class AdmittingSeparateAsync(_Admitting, PPOTrainerSeparateAsync):
    """Trainer and generator on GPUs of their own."""


@register_trainer("admitting_colocate_async")
class AdmittingColocateAsync(_Admitting, PPOTrainerColocateAsync):
    """Both on the same GPUs."""
