"""The training data of the tiny policy: prompts with imperfect answers, as token ids, in batches.

Invariants: the loss covers the answer, never the prompt; the same seed gives the same batches; no prompt of
the test split is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from llmi.demo.policy.architecture import MERGE, make_processor
from llmi.demo.policy.recipe import Kind, Recipe
from llmi.demo.policy.tokenizer import END
from llmi.demo.prompts.corpus import Prompt, prompts
from llmi.demo.prompts.specimens import write
from policy.data.dataset import place_images

_CHUNK = 64  # images processed at a time
_POOL = 4  # batches


@dataclass(frozen=True)
class Lesson:
    """One prompt with its answer. `pixels` (patches, channels) and `grid` (3,): the input image, or None."""

    prompt: list[int]
    answer: list[int]
    pixels: Any = None
    grid: Any = None

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.answer)


def pairs(kind: Kind, recipe: Recipe, seed: int) -> list[tuple[Prompt, str]]:
    """Prompts of the training split with one imperfect answer each; for "vl", two of three have an input
    image."""
    random = Random(f"lessons:{seed}")
    plain, pictured = (prompts(seed + 1, "train", pictures=pictures) for pictures in (False, True))
    chosen = [next(pictured if kind == "vl" and number % 3 else plain) for number in range(recipe.documents)]
    return [(prompt, write(random, prompt.topic, prompt.image_num, recipe.flaws)) for prompt in chosen]


def chat_text(tokenizer: Any, prompt: Prompt) -> str:
    """The prompt by the chat template, up to the beginning of the answer."""
    messages = [{"role": "user", "content": prompt.text}]
    if prompt.image:
        messages = place_images(messages, 1)
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def make_lessons(
    samples: list[tuple[Prompt, str]], tokenizer: Any, progress: Callable[[float], None]
) -> list[Lesson]:
    """Token ids for every pair. `progress` gets the share done of the images."""
    prompts = tokenizer(
        [chat_text(tokenizer, prompt) for prompt, _ in samples], add_special_tokens=False
    ).input_ids
    answers = tokenizer([answer + END for _, answer in samples], add_special_tokens=False).input_ids
    seen = [place for place, (prompt, _) in enumerate(samples) if prompt.image]
    images = make_processor(tokenizer).image_processor if seen else None
    vision: dict[int, tuple[Any, Any]] = {}
    for start in range(0, len(seen), _CHUNK):
        chunk = seen[start : start + _CHUNK]
        made = _processed(images, [samples[place][0].image for place in chunk])
        vision.update(zip(chunk, made, strict=True))
        progress(start / len(seen))
    pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    lessons = []
    for place, (ids, answer) in enumerate(zip(prompts, answers, strict=True)):
        pixels, grid = vision.get(place, (None, None))
        if grid is not None:
            count = int(grid.prod()) // MERGE**2
            at = ids.index(pad)
            ids = [*ids[:at], *[pad] * count, *ids[at + 1 :]]
        lessons.append(Lesson(ids, answer, pixels, grid))
    return lessons


def _processed(images: Any, encoded: list[bytes]) -> list[tuple[Any, Any]]:
    import io

    from PIL import Image

    made = images(
        images=[Image.open(io.BytesIO(data)).convert("RGB") for data in encoded], return_tensors="pt"
    )
    grids = made["image_grid_thw"]
    return list(zip(made["pixel_values"].split(grids.prod(dim=1).tolist()), grids, strict=True))


def batches(lessons: list[Lesson], size: int, seed: int) -> Iterator[list[Lesson]]:
    """Endless batches, shuffled for every round; answers of similar length share a batch.

    Sorting saves padding; it is done in pools of a few batches, so that no part of the training sees only
    short answers.
    """
    random = Random(seed)
    order = list(lessons)
    while True:
        random.shuffle(order)
        for start in range(0, len(order), size * _POOL):
            pool = sorted(order[start : start + size * _POOL], key=lambda lesson: lesson.length)
            made = [pool[at : at + size] for at in range(0, len(pool), size)]
            random.shuffle(made)
            yield from made


def tensors(batch: list[Lesson], tokenizer: Any) -> dict[str, Any]:
    """A batch as the model's arguments, padded on the right; `labels` is -100 where there is no loss."""
    import torch

    longest = max(lesson.length for lesson in batch)
    ids = torch.full((len(batch), longest), tokenizer.pad_token_id)
    labels = torch.full((len(batch), longest), -100)
    mask = torch.zeros((len(batch), longest), dtype=torch.long)
    for row, lesson in enumerate(batch):
        ids[row, : lesson.length] = torch.tensor(lesson.prompt + lesson.answer)
        labels[row, len(lesson.prompt) : lesson.length] = torch.tensor(lesson.answer)
        mask[row, : lesson.length] = 1
    made = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    pictured = [lesson for lesson in batch if lesson.pixels is not None]
    if pictured:
        made["pixel_values"] = torch.cat([lesson.pixels for lesson in pictured])
        made["image_grid_thw"] = torch.stack([lesson.grid for lesson in pictured])
        made["mm_token_type_ids"] = (ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
    return made
