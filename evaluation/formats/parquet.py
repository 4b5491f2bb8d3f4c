"""Prompts in the LLM-I schema, as for training: each document gets the training reward."""

from __future__ import annotations

from pathlib import Path

from evaluation.benchmark import Entry, Format
from policy.data import table
from policy.data.dataset import load_rows


class FORMAT(Format):
    """See the module."""

    kind = "reward"
    files = "a .parquet file in the LLM-I schema"

    def matches(self, path: Path, head: bytes) -> bool:
        return head.startswith(table.MAGIC) or path.suffix == ".parquet"

    def read(self, path: Path) -> list[Entry]:
        return [
            Entry(
                item_id=f"{row.index + 1:04d}",
                task=row.task(),
                criteria={},
                images=row.images,
                where=f"{path}: row {row.index}",
            )
            for row in load_rows(path)
        ]
