"""A training step of a tiny random Qwen3 with adapters, on verl's FSDP2 engine over gloo.

Prints, as JSON, log-probabilities of fixed tokens with the adapters merged into the weights and not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from policy.settings import TrainSettings
from policy.train.options.verl_config import compose
from policy.train.verl_options import hydra_overrides

VOCABULARY = 64
TOKENS = torch.arange(1, 17).unsqueeze(0)


def write_model(folder: Path) -> None:
    """A folder with a random model and its tokenizer."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    Qwen3ForCausalLM(Qwen3Config(vocab_size=VOCABULARY, **sizes, **heads)).save_pretrained(folder)
    words = WordLevel({f"w{number}": number for number in range(VOCABULARY)}, unk_token="w0")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), pad_token="w0", eos_token="w1", chat_template="{{ messages }}"
    )
    tokenizer.save_pretrained(folder)


def make_engine(folder: Path, merge: bool) -> Any:
    """The engine as a run's actor has it."""
    train = TrainSettings(
        model=str(folder), device="cpu", batch_size=8, prompt_tokens=16, response_tokens=16,
        tensor_parallel=1, sequence_parallel=1, trainer_gpus=1, rollout_gpus=1, steps=3,
        warmup_steps=0, lr=1e-2, lora={"rank": 4, "merge": merge},
    )  # fmt: skip
    config = compose(hydra_overrides(train, run=folder, data_train=[], data_test=[])).actor_rollout_ref
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine.base import EngineRegistry

    config.actor.optim.total_training_steps = 3
    actor, model = omega_conf_to_dataclass(config.actor), omega_conf_to_dataclass(config.model)
    engine = EngineRegistry.new(
        model_type="language_model",
        backend=actor.strategy,
        model_config=model,
        engine_config=actor.fsdp_config,
        optimizer_config=actor.optim,
        checkpoint_config=actor.checkpoint,
    )
    engine.initialize()
    return engine


def log_probs(model: Any) -> torch.Tensor:
    logits = model(input_ids=TOKENS, use_cache=False).logits.float()[:, :-1]
    return logits.log_softmax(-1).gather(-1, TOKENS[:, 1:, None]).squeeze(-1)


def step(folder: Path, merge: bool) -> dict[str, list[float]]:
    """The log-probabilities of the generator before and after a step, and of the trainer after it."""
    engine = make_engine(folder, merge)
    generator = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def generated() -> list[float]:
        # As `ActorRolloutRefWorker.update_weights` asks for them, for separate generators.
        weights, _ = engine.get_per_tensor_param()
        received = {name.replace(".base_layer", ""): tensor.float() for name, tensor in weights}
        generator.load_state_dict(received, strict=True)
        with torch.no_grad():
            return log_probs(generator).flatten().tolist()

    before = generated()
    with engine.train_mode():
        (-log_probs(engine.module).mean()).backward()
        engine.optimizer_step()
    after = generated()
    with engine.eval_mode(), torch.no_grad():
        return {"before": before, "after": after, "trained": log_probs(engine.module).flatten().tolist()}


if __name__ == "__main__":
    model = Path(sys.argv[1])
    write_model(model)
    print(json.dumps({"merged": step(model, merge=True), "alone": step(model, merge=False)}))
