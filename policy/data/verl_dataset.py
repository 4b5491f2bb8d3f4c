"""The dataset class for verl's data loader (`data.custom_cls`), over `policy.data.dataset`.

Invariants:
- images are validated and stored as blobs; a row has only their references, so no image enters the trainer;
- a prompt longer than `max_prompt_length` is skipped at the start with a warning, never cut;
- the state that verl saves with its data loader has everything that the choice of the next prompt depends on.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

from policy.data.checked_images import CheckedImages
from policy.data.curriculum import Curriculum
from policy.data.dataset import load_rows
from policy.data.prompt_length import prompt_tokens
from policy.data.prompt_results import PromptResults
from policy.grammar.prompts import system_prompt
from workers.errors import ConfigError
from workers.messages import BlobRef
from workers.settings import BlobSettings, section
from workers.storage.blobs import BlobStore

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

logger = logging.getLogger(__name__)


class InterleavedDataset(Dataset):
    """The rows of one or more parquet files. Raises `ConfigError` for a file that cannot be read.

    `results`: what the groups of the run have shown about the rows.

    A row has `raw_prompt` (chat messages, images as bare `{"type": "image"}`), `task` (a `Task` as JSON),
    `index`, `visit` (how often the run has read the row before), and `dummy_tensor`, because verl needs a
    tensor in a batch.
    """

    def __init__(
        self,
        data_files: str | list[str],
        tokenizer: PreTrainedTokenizerBase,
        config: DictConfig,
        processor: ProcessorMixin | None = None,
        max_samples: int = -1,
    ):
        files = [data_files] if isinstance(data_files, str) else list(data_files)
        self._system = system_prompt() if config.system_prompt else ""
        template = dict(config.get("apply_chat_template_kwargs") or {})
        self._limit = int(config.max_prompt_length)
        rows = [row for file in files for row in load_rows(file)]
        if processor is None and any(row.images for row in rows):
            raise ConfigError(f"{', '.join(files)}: has images, but the model takes none; use a VL model")
        fitting = [
            row for row in rows if prompt_tokens(row, self._system, tokenizer, template) <= self._limit
        ]
        if len(fitting) < len(rows):
            left_out = len(rows) - len(fitting)
            logger.warning(
                "skipped %d of %d prompts: longer than %d tokens", left_out, len(rows), self._limit
            )
        if not fitting:
            raise ConfigError(f"{', '.join(files)}: no prompt fits train.prompt_tokens = {self._limit}")
        self._rows = fitting[:max_samples] if max_samples > 0 else fitting
        self._visits: Counter[int] = Counter()
        self._checked = CheckedImages()
        self._config = config
        steps_per_epoch = len(self._rows) / config.train_batch_size
        self.results = PromptResults(len(self._rows), config.curriculum.half_life * steps_per_epoch)
        self._curriculum: Curriculum | None = None
        self._recent: deque[int] = deque(maxlen=min(config.train_batch_size, len(self._rows) // 2))

    def prefer_signal(self) -> None:
        """From now on choose rows by their results, after each was read once in verl's order."""
        seed = int(self._config.seed or 0)  # verl allows none
        self._curriculum = Curriculum(self.results, self._config.curriculum.floor, seed)

    def metrics(self) -> dict[str, float]:
        """Metrics of a step."""
        effective = {"prompts/effective": self._curriculum.effective()} if self._curriculum else {}
        return self.results.metrics() | effective

    def state_dict(self) -> dict[str, Any]:
        """The state that verl's checkpoint holds with that of its data loader."""
        return {
            "visits": dict(self._visits),
            "recent": list(self._recent),
            "results": self.results.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises `ConfigError` for the state of more or fewer prompts if it decides which are read."""
        self._visits = Counter(state["visits"])
        if "results" not in state:  # an older checkpoint
            return
        self._recent = deque(state["recent"], maxlen=self._recent.maxlen)
        try:
            self.results.load_state_dict(state["results"])
        except ConfigError as error:
            if self._curriculum:
                raise
            logger.warning("the metrics of prompts start again: %s", error)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, item: int) -> dict[str, Any]:
        import torch

        item = self._choose(item)
        row, visit = self._rows[item], self._visits[item]
        self._visits[item] += 1
        return {
            "raw_prompt": row.chat(self._system),
            "task": row.task(self._inputs(item)).model_dump_json(),
            "data_source": row.data_source,
            "index": item,
            "visit": visit,
            "dummy_tensor": torch.zeros(1, dtype=torch.uint8),
        }

    def _choose(self, item: int) -> int:
        """The row to read where verl's order has `item`."""
        if self._curriculum and self._visits[item]:
            item = self._curriculum.choose(self._visits.total(), self._recent)
        self._recent.append(item)
        return item

    def _inputs(self, item: int) -> tuple[BlobRef, ...]:
        """Store the images at every visit, so that one lost or damaged since the last is there again."""
        images = self._rows[item].images
        blobs = BlobStore(section("blobs", BlobSettings).url) if images else None
        return tuple(blobs.put(self._checked.get(image)) for image in images) if blobs else ()
