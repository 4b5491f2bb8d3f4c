"""Read the documents that `sft.source` names: those of runs, and conversations of Parquet files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from coordinator.config.settings import AGAIN_FILE, CONFIG_FILE, RunConfig, load
from policy.data.dataset import Row, load_rows
from policy.grammar.prompts import chat, system_prompt
from policy.ledger.entries import LEDGER
from policy.ledger.reader import read_ledger
from policy.sft.best import best, scored
from policy.sft.examples import Example, Selection, of_file
from policy.sft.examples import load as load_examples
from policy.sft.settings import EXAMPLES
from workers.errors import ConfigError


def collect(config: RunConfig, runs: Path) -> Selection:
    """Everything that is trained on, the best first. `runs`: the folder of runs named by name.

    Raises `ConfigError` for a source that cannot be read, or when no document is left.
    """
    if not config.sft.source:
        raise ConfigError(
            "sft.source: is empty; name a run or a Parquet file of conversations, here or by --from"
        )
    system = system_prompt() if config.train.system_prompt else ""
    examples: list[Example] = []
    left_out: Counter[str] = Counter()
    for name in config.sft.source:
        found = _of_source(config, name, runs, system)
        examples += found.examples
        left_out += found.left_out
    chosen = best(Selection(tuple(examples), left_out), config.sft)
    if not chosen.examples:
        why = "; ".join(f"{count:,} {reason}" for reason, count in chosen.left_out.most_common())
        raise ConfigError(
            f"sft.source: {', '.join(config.sft.source)}: no document is left ({why or 'there is none'}); "
            f"lower sft.min_reward ({config.sft.min_reward:g}), or name another source"
        )
    return chosen


def _of_source(config: RunConfig, name: str, runs: Path, system: str) -> Selection:
    folder = next((place for place in (runs / name, Path(name)) if place.is_dir()), None)
    try:
        if folder is None:
            return of_file(Path(name), system)
        if (folder / EXAMPLES).is_file():
            again = (
                replace(one, messages=tuple(chat(list(one.messages), system)))
                for one in load_examples(folder / EXAMPLES)
            )
            return Selection(tuple(again), Counter())
        return scored(read_ledger(folder), _rows(folder), system)
    except ConfigError as error:
        raise ConfigError(f"sft.source: {error}") from error
    except ValueError as error:
        raise ConfigError(f"sft.source: {error}; fix or remove that line of the ledger") from error


def _rows(run: Path) -> Iterator[Row]:
    """The prompts that the run was trained on."""
    # The file of its processes has absolute paths.
    file = next((run / one for one in (CONFIG_FILE, AGAIN_FILE) if (run / one).is_file()), None)
    if file is None or not (run / LEDGER).is_dir():
        raise ConfigError(f"{run}: is no folder of a run; name one, or a Parquet file of conversations")
    for data in load(file).data.train:
        yield from load_rows(data)
