"""verl's trainers with what a run that may die needs, and with prompts submitted by the sampler (verl 0.9.1).

Registered by being imported. `lasting_*` differ from verl's own in the ids of their groups, which follow from
the prompt and how often it was asked before, so that a group read again after a resume is the same group.
`admitting_*` submit nothing at the beginning of a step, where stock verl submits a batch, so that the number
of groups under way never changes: `policy.train.sampler` submits, through the `refill_fn` that verl gives it,
as `policy.admission.window` decides.
"""

from __future__ import annotations

import functools
import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transfer_queue as tq
from verl.trainer.ppo.v1 import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu

from policy.settings import PAST_METRICS
from policy.train.sampler import TRAIN
from workers.storage.atomic import save

if TYPE_CHECKING:
    _Base = Any  # mixed in before one of verl's trainers, which type checkers do not see
else:
    _Base = object

IDENTITY = "identity"


@functools.cache
def run_uuid(run: Path) -> uuid.UUID:
    """What tells this run's groups from those of every other run, also of one that had the same folder."""
    path = run / IDENTITY
    if not path.exists():
        save(path, str(uuid.uuid4()))
    return uuid.UUID(path.read_text(encoding="utf-8"))


def group_id(run: uuid.UUID, index: int, visit: int) -> str:
    """Of the group that answers the prompt `index` for the `visit`-th time. Without an underscore, which ends
    it in verl's keys."""
    return str(uuid.uuid5(run, f"{index}.{visit}"))


class _Lasting(_Base):
    def _fetch_one_gen_batch(self) -> Any:
        batch = super()._fetch_one_gen_batch()
        run = run_uuid(Path(self.config.trainer.v1.sampler.sampler_kwargs.run))
        rows = zip(batch["index"], batch["visit"], strict=True)
        names = [group_id(run, int(index), int(visit)) for index, visit in rows]
        tu.assign_non_tensor_stack(batch, "uid", names)
        return batch

    def _load_checkpoint(self) -> None:
        """And clear what the checkpoint holds of the batch that it was made of, which verl clears only
        after."""
        super()._load_checkpoint()
        items = (tq.kv_list(TRAIN) or {}).get(TRAIN, {}) if self.global_steps else {}
        trained = [key for key in items if "_" in key and key.split("_")[0] not in items]
        if trained:
            tq.kv_clear(keys=trained, partition_id=TRAIN)

    def on_train_begin(self) -> None:
        """The metrics of the steps before come first in the file that verl has just made anew."""
        past = Path(self.config.trainer.v1.sampler.sampler_kwargs.run) / PAST_METRICS
        for line in past.read_text(encoding="utf-8").splitlines() if past.exists() else ():
            row = json.loads(line)
            self.logger.log(data=row["data"], step=row["step"])
        super().on_train_begin()


class _Admitting(_Base):
    def prepare_step(self) -> dict:
        """Submit nothing: `GroupSamplerAsync.sample` does."""
        return {}


@register_trainer("lasting_sync")
class LastingSync(_Lasting, PPOTrainerSync):
    """One after the other on the same GPUs."""


@register_trainer("lasting_separate_async")
class LastingSeparateAsync(_Lasting, PPOTrainerSeparateAsync):
    """Trainer and generator on GPUs of their own."""


@register_trainer("lasting_colocate_async")
class LastingColocateAsync(_Lasting, PPOTrainerColocateAsync):
    """Both on the same GPUs."""


@register_trainer("admitting_separate_async")
class AdmittingSeparateAsync(_Admitting, LastingSeparateAsync):
    """Trainer and generator on GPUs of their own."""


@register_trainer("admitting_colocate_async")
class AdmittingColocateAsync(_Admitting, LastingColocateAsync):
    """Both on the same GPUs."""
