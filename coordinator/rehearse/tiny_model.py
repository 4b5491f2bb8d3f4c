"""`python -m coordinator.rehearse.tiny_model MODEL FOLDER`: write the model of a rehearsal into FOLDER.

It has MODEL's architecture, tokenizer and processor, small layers (`coordinator.rehearse.shrink`) and random
weights that are trained for some seconds (`coordinator.rehearse.teach`). Of MODEL, a folder or a hub id, only
the small files are read, no weights.

Started by `coordinator.rehearse.program`.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from coordinator.rehearse.program import UNUSABLE
from coordinator.rehearse.shrink import shrunk
from coordinator.rehearse.teach import STEPS, teach
from workers.errors import ConfigError

FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")  # all but weights and code
WEIGHTS = "*.index.json"
SEED = 0


def build(model: str, folder: Path, steps: int = STEPS) -> None:
    """Write the folder, which does not exist yet; train for `steps`. Raises `ConfigError`."""
    source = _source(model)
    folder.mkdir()
    for pattern in FILES:
        for file in source.glob(pattern):
            if not file.match(WEIGHTS):
                shutil.copyfile(file, folder / file.name)
    config = _config(model, source)
    tokenizer = _tokenizer(model, source, config)
    made = _weights(model, config)
    teach(made, tokenizer, steps)
    made.save_pretrained(folder)


def _source(model: str) -> Path:
    """The folder of MODEL; for a hub id, of its small files in the local hub cache, downloaded if missing."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(model, allow_patterns=list(FILES), ignore_patterns=[WEIGHTS])
    except (OSError, ValueError) as error:  # the hub's own errors are one of both
        raise ConfigError(
            f"train.model: {model} is no folder here, and its configuration and tokenizer cannot be read "
            f"from the hub ({_line(error)}); where there is a network, run `hf download {model} --exclude "
            "'*.safetensors'`, and name that folder with train.model=FOLDER"
        ) from error
    return Path(found)


def _config(model: str, source: Path) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source)
        return type(config).from_dict(shrunk(config.to_dict()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"train.model: {model}: its config.json cannot be used: {_line(error)}") from error


def _tokenizer(model: str, source: Path, config: Any) -> Any:
    """The tokenizer. Raises `ConfigError` without one that has a chat template and fits the vocabulary."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ConfigError(f"train.model: {model} has no tokenizer: {_line(error)}") from error
    if len(tokenizer) <= len(tokenizer.added_tokens_decoder):  # what transformers makes without any file
        raise ConfigError(f"train.model: {model} has no tokenizer; name a folder that holds tokenizer.json")
    if not tokenizer.chat_template:
        raise ConfigError(f"train.model: the tokenizer of {model} has no chat template; name a chat model")
    vocabulary = config.get_text_config().vocab_size
    if len(tokenizer) > vocabulary:
        raise ConfigError(
            f"train.model: the tokenizer of {model} has {len(tokenizer):,} tokens, and its config.json a "
            f"vocab_size of {vocabulary:,}; use the tokenizer that belongs to the model"
        )
    return tokenizer


def _weights(model: str, config: Any) -> Any:
    import torch
    import transformers

    name = next(iter(config.architectures or ()), "")
    kind = getattr(transformers, name, None)
    if kind is None:
        raise ConfigError(
            f"train.model: {model}: transformers {transformers.__version__} has no {name or 'architecture'}; "
            "correct architectures in its config.json"
        )
    torch.manual_seed(SEED)
    return kind(config)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def main() -> None:
    """Build, and report what is wrong with the model on stdout."""
    import torch

    torch.set_num_threads(1)  # faster than two for layers of this size, above all on a busy machine
    model, folder = sys.argv[1:]
    try:
        build(model, Path(folder))
    except ConfigError as error:
        sys.stdout.write(json.dumps(str(error)) + "\n")
        sys.exit(UNUSABLE)


if __name__ == "__main__":
    main()
