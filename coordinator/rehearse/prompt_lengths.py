"""`python -m coordinator.rehearse.prompt_lengths MODEL REQUEST`: print how many tokens each prompt has.

MODEL: a folder with a tokenizer. REQUEST, as JSON: `files`, the data files by field; `system_prompt`, whether
a prompt begins with it; `template`, the arguments of the chat template. The answer: the lengths by field.
Started by `coordinator.rehearse.program`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from coordinator.rehearse.program import UNUSABLE
from policy.data.dataset import load_rows
from policy.data.prompt_length import prompt_tokens
from policy.grammar.prompts import system_prompt
from workers.errors import ConfigError


def measure(model: str, request: Mapping[str, Any]) -> dict[str, list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    system = system_prompt() if request["system_prompt"] else ""
    template = request["template"]
    return {
        field: [prompt_tokens(row, system, tokenizer, template) for file in files for row in load_rows(file)]
        for field, files in request["files"].items()
    }


def main() -> None:
    """Measure, and report a file that cannot be read on stdout."""
    model, request = sys.argv[1:]
    try:
        answer: object = measure(model, json.loads(request))
    except ConfigError as error:
        sys.stdout.write(json.dumps(str(error)) + "\n")
        sys.exit(UNUSABLE)
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
