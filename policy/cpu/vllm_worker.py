"""vLLM worker extension that loads new weights on a CPU (`rollout.engine_kwargs.vllm.worker_extension_cls`).

CPU vLLM 0.27.1 packs linear weights for oneDNN after loading and drops the originals, so verl 0.9.1's
`model.load_weights` fails. vLLM's own `reload_weights` restores the layers, loads and packs again. It calls
one private method of verl, `_get_zmq_handle`. Remove this when packed layers can be loaded into: then
`tests/e2e/test_grpo.py` passes with verl's own extension.
"""

from __future__ import annotations

from typing import Any

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

from workers.errors import ConfigError


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    """Receives all buckets, then loads them.

    A failed load is then an error of this call, which verl reports, and no sender waits for an
    acknowledgement.
    """

    def update_weights_from_ipc(
        self, peft_config: dict[str, Any] | None = None, base_sync_done: bool = False, use_shm: bool = False
    ) -> None:
        from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver

        if peft_config and base_sync_done:
            raise ConfigError("train.lora.merge: a CPU takes merged weights only; set it to true")
        received: list[tuple[str, torch.Tensor]] = []

        def keep(weights: list[tuple[str, torch.Tensor]], _is_last: bool) -> None:
            # The buckets share one buffer, which the next one overwrites.
            received.extend((name, tensor.clone()) for name, tensor in weights)

        receiver = BucketedWeightReceiver(self._get_zmq_handle(), device=self.device, use_shm=use_shm)
        receiver.receive_weights(on_bucket_received=keep)
        self.model_runner.reload_weights(weights_iterator=iter(received))
