"""Trains the tiny diffusion weights on the drawn scenes, for some seconds.

First the autoencoder is trained on pictures, then the transformer, by flow matching, on captions and on edits
to another light. The text encoder stays random: its embeddings tell words apart. The results are small and
soft, but they follow the prompt.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from llmi.demo.drawn.scenes import draw
from llmi.demo.image_models.autoencoder import flat_convolutions, train_autoencoder
from llmi.demo.image_models.lessons import (
    SIDE,
    STYLES,
    Lesson,
    make_lessons,
    scenes_of,
    shapes,
    styled_picture,
    to_array,
)
from llmi.demo.image_models.optimizing import Progress, update

logger = logging.getLogger(__name__)

STEPS, BATCH = 320, 48
FIRST_PART = 0.18  # measured share of the time that the autoencoder takes
EMPTY = " "  # the negative prompt: what guidance leads away from


def train(pipeline: Any, progress: Progress) -> None:
    """Train the parts of an edit-plus pipeline in place. About half a minute on one core."""
    import torch

    chance = random.Random(0)
    scenes = scenes_of(chance)
    drawings = [draw(scene, (SIDE, SIDE), 0) for scene in scenes]
    styles = [chance.choice(list(STYLES)) for _ in scenes]
    styled = [styled_picture(drawing, style) for drawing, style in zip(drawings, styles, strict=True)]
    pixels = torch.from_numpy(np.stack([to_array(image) for image in (*drawings, *styled)]))
    others = torch.from_numpy(np.stack([to_array(shapes(chance)) for _ in range(96)]))
    lessons = make_lessons(scenes, styles, chance)
    with _one_thread(), flat_convolutions():
        train_autoencoder(
            pipeline.vae, torch.cat([pixels, others]), chance, lambda share: progress(FIRST_PART * share)
        )
        _train_transformer(
            pipeline,
            _packed(pipeline, pixels),
            lessons,
            chance,
            lambda share: progress(FIRST_PART + (1 - FIRST_PART) * share),
        )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: for models this small, a second costs more than it gains."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _packed(pipeline: Any, pixels: Any) -> Any:
    """Normal latents of the pictures, packed as the transformer takes them: (pictures, tokens, 64)."""
    import torch

    config = pipeline.vae.config
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (config.latents_mean, config.latents_std))
    with torch.no_grad():
        latents = (pipeline.vae.encode(pixels).latent_dist.mean - mean) / std
    count, channels, _, height, width = latents.shape
    return pipeline._pack_latents(latents.transpose(1, 2), count, channels, height, width)


def _train_transformer(
    pipeline: Any, latents: Any, lessons: list[Lesson], chance: random.Random, progress: Progress
) -> None:
    import torch

    model = pipeline.transformer
    words = _Words(pipeline)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS, pct_start=0.1)
    drawing = [lesson for lesson in lessons if lesson.origin is None]
    editing = [lesson for lesson in lessons if lesson.origin is not None]
    grid = SIDE // 16
    for step in range(STEPS):
        progress(step / STEPS)
        edit = step % 3 == 2
        batch = chance.choices(editing if edit else drawing, k=BATCH)
        clean = latents[[lesson.target for lesson in batch]]
        noise, sigma = torch.randn_like(clean), torch.sigmoid(torch.randn(BATCH) * 1.2 + 0.3)
        mixed = clean + sigma[:, None, None] * (noise - clean)
        shapes = [(1, grid, grid)]
        if edit:
            mixed = torch.cat([mixed, latents[[lesson.origin for lesson in batch]]], dim=1)
            shapes = shapes * 2
        prompts = [EMPTY if chance.random() < 0.1 else lesson.prompt for lesson in batch]
        embeds, mask = words.of(prompts, edit)
        found = model(
            hidden_states=mixed,
            timestep=sigma,
            encoder_hidden_states=embeds,
            encoder_hidden_states_mask=mask,
            img_shapes=[shapes] * BATCH,
            return_dict=False,
        )[0][:, : clean.shape[1]]
        loss = (found - (noise - clean)).square().mean()
        update(model, loss, optimizer, schedule)
    logger.info("tiny transformer: flow-matching loss %.3f", loss.item())


class _Words:
    """Prompt embeddings as the pipelines make them, each computed once."""

    def __init__(self, pipeline: Any):
        from diffusers import QwenImagePipeline

        self._edit = pipeline
        parts = {name: part for name, part in pipeline.components.items() if name != "processor"}
        self._draw = QwenImagePipeline(**parts)
        self._known: dict[tuple[str, bool], Any] = {}

    def of(self, prompts: list[str], edit: bool) -> tuple[Any, Any]:
        """Padded embeddings (batch, tokens, hidden) and their mask."""
        import torch

        for prompt in prompts:
            if (prompt, edit) not in self._known:
                self._known[prompt, edit] = self._embed(prompt, edit)
        found = [self._known[prompt, edit] for prompt in prompts]
        longest = max(len(one) for one in found)
        mask = torch.zeros(len(found), longest, dtype=torch.long)
        padded = torch.zeros(len(found), longest, found[0].shape[1])
        for row, one in enumerate(found):
            mask[row, : len(one)], padded[row, : len(one)] = 1, one
        return padded, mask

    def _embed(self, prompt: str, edit: bool) -> Any:
        import torch

        with torch.no_grad():
            if not edit:
                return self._draw.encode_prompt(prompt)[0][0]
            # Any picture will do: the random vision tower carries no information, the reference latents do.
            return self._edit.encode_prompt(prompt, image=[Image.new("RGB", (SIDE, SIDE))])[0][0]
