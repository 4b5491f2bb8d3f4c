"""Everything that is decided and checked before a supervised training starts.

Invariant: nothing is written or started here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from coordinator.check import folders, inputs
from coordinator.config.paths import placed
from coordinator.config.settings import RunConfig
from coordinator.console.stages import Step
from coordinator.sft import resume
from coordinator.sft.documents import collect
from policy.sft.examples import Selection, load
from policy.sft.plan import Plan, plan
from policy.sft.settings import EXAMPLES
from policy.sft.tokens import encode
from policy.sft.verl_options import longest, overrides, template_arguments, unread
from policy.sft.verl_options import problems as option_problems
from workers.errors import ConfigError


@dataclass(frozen=True)
class Prepared:
    """`config`: with absolute paths. `tokens`: of all documents, without their prompts. `options`: of
    `policy.sft.main`.
    """

    config: RunConfig
    run: Path
    selection: Selection
    tokens: int
    longest: int
    plan: Plan
    options: list[str]


def prepare(config: RunConfig, runs: Path, step: Step, *, resumed: bool = False) -> Prepared:
    """Choose the documents and check everything. Raises one `ConfigError` with what is wrong.

    `resumed`: the documents are those of the run that died.
    """
    run = (runs / config.name).absolute()
    step("checking folders, model and options", None, "")
    own = resume.problems(config, run) if resumed else folders.run_folder(run)
    if problems := [*own, *_unsupported(config, run), *(inputs.unbuilt(config) or inputs.model(config))]:
        raise ConfigError("\n".join(problems))
    step("choosing the documents", None, "")
    selection = Selection(tuple(load(run / EXAMPLES)), Counter()) if resumed else collect(config, runs)
    used = placed(config, blobs=run)
    tokens, most = _tokens(used, selection)
    planned = plan(len(selection.examples), used.train, used.sft)
    options = overrides(used.train, used.sft, planned, run, resume=resumed)
    if problems := list(option_problems(used.train, used.sft, options)):
        raise ConfigError("\n".join(problems))
    return Prepared(used, run, selection, tokens, most, planned, options)


def _unsupported(config: RunConfig, run: Path) -> Iterator[str]:
    train, sft = config.train, config.sft
    if re.search("[?#]", str(run)):
        yield f"--dir: {run}: has a ? or #, which ends a path for torch; name another folder"
    if train.modality != "text":
        yield "train.modality: llmi sft trains text models only; set train.modality to text"
    if train.megatron:
        yield "train.verl.model_engine: llmi sft trains with FSDP; leave megatron out"
    yield from unread(train)
    if train.trainer_nodes > 1:
        yield (
            f"train.trainer_nodes: llmi sft trains on the GPUs of this machine; set 1 (it is "
            f"{train.trainer_nodes})"
        )
    room = train.micro_batch_tokens * train.sequence_parallel
    if longest(train, sft) > room:
        yield (
            f"sft.max_tokens: {longest(train, sft)} is more than train.micro_batch_tokens times "
            f"train.sequence_parallel = {room}; lower it, or raise those"
        )


def _tokens(config: RunConfig, selection: Selection) -> tuple[int, int]:
    """Tokens of all answers, and of the longest example. Raises `ConfigError` for one that is too long."""
    tokenizer = _tokenizer(config.train.model)
    template = template_arguments(config.train)
    try:
        encoded = [encode(example, tokenizer, template) for example in selection.examples]
    except ConfigError:
        raise
    except (TemplateError, ValueError) as error:  # the latter without a template
        why = str(error).partition("\n")[0]
        raise ConfigError(
            f"train.model: the chat template of {config.train.model} cannot render the messages ({why}); "
            "name a model with a chat template, or set train.system_prompt to false if it takes no system "
            "message"
        ) from error
    limit, most = longest(config.train, config.sft), max(map(len, encoded))
    if most > limit:
        over = sum(len(one) > limit for one in encoded)
        raise ConfigError(
            f"sft.max_tokens: {limit} is less than the longest document with its prompt, {most} tokens "
            f"({over} of {len(encoded)} are longer); raise it, or leave those documents out of sft.source"
        )
    return sum(len(one.answer) for one in encoded), most


def _tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise ConfigError(f"train.model: the tokenizer of {model} cannot be loaded: {why}") from error
