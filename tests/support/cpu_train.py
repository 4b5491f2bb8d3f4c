"""Settings of `train` for a tiny model on a CPU, as far as tests share them."""

from __future__ import annotations

CPU_TRAIN = {
    "model": "tiny",
    "device": "cpu",
    "prompt_tokens": 200,
    "response_tokens": 300,
    "micro_batch_tokens": 8192,
    "tensor_parallel": 1,
    "sequence_parallel": 1,
    "trainer_gpus": 1,
    "rollout_gpus": 1,
}
