"""The prompts that a rehearsal skips because its `train.prompt_tokens` is smaller than the run's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from coordinator.config.settings import RunConfig
from coordinator.rehearse import program
from coordinator.rehearse.unrehearsed import Unrehearsed
from policy.train.options.passthrough import leaves
from workers.errors import ConfigError

MODULE = "coordinator.rehearse.prompt_lengths"
TEMPLATE = "data.apply_chat_template_kwargs."


def long_prompts(config: RunConfig, limit: int, model: Path) -> list[Unrehearsed]:
    """What of the data of `config` a rehearsal skips, with prompts of at most `limit` tokens.

    `model`: a folder with the tokenizer. Raises `ConfigError` when no prompt of a field is left.
    """
    if limit >= config.train.prompt_tokens:
        return []
    request = {
        "files": {"data.train": config.data.train, "data.test": config.data.test},
        "system_prompt": config.train.system_prompt,
        "template": {
            name.removeprefix(TEMPLATE): value
            for name, value in leaves(config.train.verl)
            if name.startswith(TEMPLATE)
        },
    }
    lengths = json.loads(
        program.run(
            MODULE,
            [str(model), json.dumps(request)],
            failed="data: the prompts cannot be tokenized",
            late="data: counting the tokens of all prompts; name smaller files",
        )
    )
    return skipped(lengths, limit, config.train.prompt_tokens)


def skipped(lengths: Mapping[str, Sequence[int]], limit: int, configured: int) -> list[Unrehearsed]:
    """The same, for `lengths` by field. `configured`: the run itself skips longer prompts."""
    found = []
    for field, every in lengths.items():
        usable = [length for length in every if length <= configured]
        if every and not usable:
            raise ConfigError(f"{field}: no prompt fits train.prompt_tokens = {configured}")
        long = sum(length > limit for length in usable)
        if usable and long == len(usable):
            raise ConfigError(
                f"{field}: every prompt has more than {limit} tokens, the most in a rehearsal; name a file "
                f"that has shorter prompts too, with {field}=FILE"
            )
        if long:
            why = f"{long} of {len(usable)} prompts have more than {limit} tokens, the most in a rehearsal"
            found.append(Unrehearsed(field, "", why))
    return found
