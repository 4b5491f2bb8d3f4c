"""Teach a tiny model with random weights to write a few short documents, one for each tool.

Random weights write no tag and no end, so that no tool would get a request, and every document of a group
would have the same reward.

Invariant: the prompts are random tokens, so that what the model writes depends little on the prompt.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

from policy.grammar.tags import CLOSE, OPEN
from policy.tool import Tool
from policy.tools import tools

STEPS = 200
RATE = 1e-2
LONGEST_PROMPT = 1024  # tokens; about the system prompt and a question
SUBJECT = "a lighthouse by the sea"
CODE = "plt.plot([3, 1, 2])"
UNSEEN = 0.1  # of each entry of the shared row of all tokens that no document has


def documents() -> list[str]:
    """One document for each tool; a picture to edit comes before the edit."""
    every = tools().values()
    picture = _tag(next(tool for tool in every if not tool.image_param))
    written = []
    for tool in every:
        before = f"{picture}\n" if tool.image_param else ""
        written.append(f"Here is {SUBJECT}.\n{before}{_tag(tool)}\nIt has seen many ships.")
    return written


def _tag(tool: Tool) -> str:
    params: dict[str, object] = {}
    for name, field in tool.params.model_fields.items():
        params[name] = 0 if field.annotation is int else CODE if name == "code" else SUBJECT
    return f"{OPEN}{{'source': '{tool.name}', 'description': '{SUBJECT}', 'params': {params}}}{CLOSE}"


def teach(model: Any, tokenizer: Any, steps: int = STEPS) -> float:
    """Train `model` in place; returns the last loss. The same arguments give the same weights."""
    import torch

    answers = tokenizer(
        [text + tokenizer.eos_token for text in documents()], add_special_tokens=False
    ).input_ids
    written = sorted({token for answer in answers for token in answer})
    head, inputs = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    tied = head is inputs
    unwritten = torch.ones(head.shape[0], dtype=torch.bool)
    unwritten[written] = False
    place = torch.full((head.shape[0],), -1)
    place[written] = torch.arange(len(written))
    # Of the two large matrices only the rows of written tokens are trained.
    rows = torch.nn.Parameter(head[written].detach().clone())
    head.requires_grad_(False)
    inputs.requires_grad_(False)
    weights = [one for one in model.parameters() if one.requires_grad]
    with torch.no_grad():
        head[unwritten] = UNSEEN + 0.02 * torch.randn(int(unwritten.sum()), head.shape[1])
    optimizer = torch.optim.AdamW([rows, *weights], lr=RATE, weight_decay=0.0)
    loss = torch.zeros(())
    for step, (ids, mask, start) in enumerate(_batches(answers, tokenizer, steps)):
        known = place[ids]
        read = {"input_ids": ids}
        if tied:
            embedded = torch.where((known >= 0).unsqueeze(-1), rows[known.clamp(min=0)], inputs[ids])
            read = {"inputs_embeds": embedded}
        hidden = model.model(**read, attention_mask=mask).last_hidden_state[:, start - 1 : -1]
        # All tokens that no document has count as one, since their rows are nearly equal.
        unseen = (hidden.sum(-1) * UNSEEN + math.log(int(unwritten.sum()))).unsqueeze(-1)
        targets = known[:, start:].masked_fill(mask[:, start:] == 0, -100)
        loss = torch.nn.functional.cross_entropy(
            torch.cat([hidden @ rows.T, unseen], -1).flatten(0, 1), targets.flatten(), ignore_index=-100
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([rows, *weights], 1.0)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 10) * (1 - step / steps)
        optimizer.step()
    with torch.no_grad():
        head[written] = rows
    return loss.item()


def _batches(answers: list[list[int]], tokenizer: Any, steps: int) -> Iterator[tuple[Any, Any, int]]:
    """Token ids and mask of all answers after prompts of random tokens, and where the answers begin."""
    import torch

    chance = random.Random(0)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    plain = [token for token in range(len(tokenizer)) if token not in special]
    chat = [{"role": "user", "content": "Write."}]
    asked = tokenizer.apply_chat_template(chat, return_dict=False)
    turn = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)[len(asked) :]
    longest = max(len(answer) for answer in answers)
    for _ in range(steps):
        length = round(math.exp(chance.uniform(0, math.log(LONGEST_PROMPT))))
        rows = [[*chance.choices(plain, k=length), *turn, *answer] for answer in answers]
        start = length + len(turn)
        ids = torch.full((len(rows), start + longest), tokenizer.eos_token_id)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        yield ids, mask, start
