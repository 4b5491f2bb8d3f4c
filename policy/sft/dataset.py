"""The dataset class of verl's SFT trainer (verl 0.9.1, `data.custom_cls`).

verl's own class renders each turn of a chat by itself and trains the line break that the template puts after
an answer, which no rollout generates.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from policy.sft.examples import load
from policy.sft.tokens import encode
from workers.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from transformers import PreTrainedTokenizerBase


class ExampleDataset(Dataset):
    """The examples of one file: token ids, positions, and the mask of tokens with loss."""

    def __init__(
        self,
        parquet_files: list[str],
        tokenizer: PreTrainedTokenizerBase,
        config: DictConfig,
        processor: object = None,
        max_samples: int = -1,
    ):
        template = dict(config.get("apply_chat_template_kwargs") or {})
        self._tokens = [
            encode(example, tokenizer, template) for file in parquet_files for example in load(Path(file))
        ]
        longest = max(map(len, self._tokens))
        if longest > config.max_length:
            raise ConfigError(
                f"sft.max_tokens: {config.max_length} is less than the longest example, {longest}"
            )

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, item: int) -> dict[str, Any]:
        tokens = self._tokens[item]
        mask = torch.zeros(len(tokens), dtype=torch.long)
        mask[len(tokens.prompt) :] = 1
        return {
            "input_ids": torch.tensor(tokens.prompt + tokens.answer),
            "position_ids": torch.arange(len(tokens)),
            "loss_mask": mask,
        }
