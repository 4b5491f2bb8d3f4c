"""Settings of `llmi sft`. Model, engine, schedule and adapters are those of `train`."""

from __future__ import annotations

from pydantic import Field, JsonValue, field_validator

from workers.settings import LocalPath, Settings

EXAMPLES = "examples.parquet"  # in the folder of the run: what it trains on


class SftSettings(Settings):
    """Supervised training on documents (`llmi sft`). The model, the engine, adapters, the schedule of the
    learning rate with its warm-up, weight decay, and the largest gradient are those of `train`.
    """

    source: tuple[LocalPath, ...] = ()
    """What is trained on: folders of runs, from which the best documents are taken, and Parquet files of
    conversations with the column `messages`. One or a list. The documents of all sources are chosen
    together, and none is taken twice."""
    min_reward: float = Field(default=0.0, ge=0, le=1)
    """Least reward of a document of a run."""
    top: float = Field(default=1.0, gt=0, le=1)
    """Share of the runs' documents that are taken, the best first, after `min_reward`."""
    per_prompt: int = Field(default=1, ge=1)
    """Most documents of runs for the same prompt, the best first. Conversations of files do not count."""
    steps: int | None = Field(default=None, ge=1)
    """Training steps; null: as many as the documents have for `epochs`."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the documents, without `steps`."""
    batch_size: int = Field(default=32, ge=1)
    """Documents of a step."""
    lr: float = Field(default=1e-5, gt=0)
    """Learning rate. Ten times that of GRPO, as is usual for supervised training of a whole model."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest document with its prompt, in tokens; null: `train.prompt_tokens` plus `train.response_tokens`.
    A longer one is refused."""
    save_every: int = Field(default=0, ge=0)
    """Steps between two checkpoints; 0: only the last step is saved. A run resumes from the last one."""
    verl: dict[str, JsonValue] = Field(default_factory=dict)
    """Any options of verl's SFT trainer, nested as in its own file (`sft_trainer_engine.yaml`). They are
    merged last; `llmi sft CONFIG --dry-run` shows and checks the result. `train.verl` has no effect here,
    but for `data.apply_chat_template_kwargs`."""

    @field_validator("source", mode="before")
    @classmethod
    def _several(cls, source: object) -> object:
        return (source,) if isinstance(source, str) else source
