"""Trains the tiny diffusion weights on the drawn scenes, for some seconds.

First the autoencoder is trained on pictures, then the transformer, by flow matching, on captions and on edits
to another light. The text encoder stays random: its embeddings tell words apart. The results are small and
soft, but they follow the prompt.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from llmi.demo.drawn.canvas import LIGHTS
from llmi.demo.drawn.scenes import Scene, draw, every_animal, every_city

logger = logging.getLogger(__name__)

Progress = Callable[[float], None]  # gets the share done, from 0 to 1

SIDE = 64  # pixels
LIGHTS_PER_PAIR = 3
AUTOENCODER_STEPS, TRANSFORMER_STEPS = 120, 320
FIRST_PART = 0.18  # measured share of the time that the autoencoder takes
AUTOENCODER_BATCH, TRANSFORMER_BATCH = 16, 48
CARRIED, CONSTANT = 7, 4.0  # channels of the autoencoder that begin as a straight way through: see _prepare
# The autoencoder is trained on crops: a quarter of the work, and it is the same everywhere in a picture.
CROP = 32
EMPTY = " "  # the negative prompt: what guidance leads away from
CHANGES = ("the same picture changed to {}", "make it {}", "show it {}")
# What a style does to a picture: colourfulness, brightness, side of its pixels.
STYLES: dict[str, tuple[float, float, int]] = {
    "watercolor": (0.8, 1.15, 1),
    "oil": (1.25, 0.95, 1),
    "pixel": (1.1, 1.0, 8),
    "charcoal": (0.0, 0.9, 1),
    "neon": (2.2, 0.8, 1),
    "pastel": (0.55, 1.3, 1),
}


@dataclass(frozen=True)
class Lesson:
    """A picture by its number, its prompt, and the number of the picture to edit (None: generate)."""

    target: int
    prompt: str
    origin: int | None = None


def texts() -> list[str]:
    """All words of the lessons."""
    chance = random.Random(0)
    prompts = [scene.caption for scene in _scenes(chance)]
    return [*prompts, *(way.format("") for way in CHANGES), *STYLES, "painting of"]


def train(pipeline: Any, progress: Progress) -> None:
    """Train the parts of an edit-plus pipeline in place. About half a minute on one core."""
    import torch

    chance = random.Random(0)
    scenes = _scenes(chance)
    drawings = [draw(scene, (SIDE, SIDE), 0) for scene in scenes]
    styles = [chance.choice(list(STYLES)) for _ in scenes]
    styled = [_styled(drawing, style) for drawing, style in zip(drawings, styles, strict=True)]
    pixels = torch.from_numpy(np.stack([_array(image) for image in (*drawings, *styled)]))
    others = torch.from_numpy(np.stack([_array(_shapes(chance)) for _ in range(96)]))
    lessons = _lessons(scenes, styles, chance)
    with _one_thread(), _flat_convolutions():
        _train_autoencoder(
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


@contextlib.contextmanager
def _flat_convolutions() -> Iterator[None]:
    """The autoencoder's causal 3D convolutions as 2D ones, which is the same for a single frame and several
    times faster.

    A causal kernel meets only zeros before the first frame, so of its slices in time just the last one
    counts.
    """
    import torch
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d

    def flat(self: Any, x: Any, cache_x: Any = None) -> Any:
        if x.shape[2] != 1 or cache_x is not None or self.stride[0] != 1:
            return stock(self, x, cache_x)
        pad, kernel = self._padding[2], self.weight[:, :, -1]
        return torch.nn.functional.conv2d(x[:, :, 0], kernel, self.bias, self.stride[1:], pad)[:, :, None]

    stock = QwenImageCausalConv3d.forward
    QwenImageCausalConv3d.forward = flat
    try:
        yield
    finally:
        QwenImageCausalConv3d.forward = stock


def _scenes(chance: random.Random) -> list[Scene]:
    lights = list(LIGHTS)
    animals = [
        Scene(a, p, light) for a, p in every_animal() for light in chance.sample(lights, LIGHTS_PER_PAIR)
    ]
    return [Scene(city, "", light) for city, light in every_city()] + animals


def _lessons(scenes: list[Scene], styles: list[str], chance: random.Random) -> list[Lesson]:
    """Each scene by its caption, with and without its light; each styled one (numbered after the plain
    ones) as a painting in its style; and each scene as a change of the same scene in another light.
    """
    lessons = []
    for number, (scene, style) in enumerate(zip(scenes, styles, strict=True)):
        unlit = scene.caption.removesuffix(scene.light).rstrip(", ")
        lessons += [Lesson(number, scene.caption), Lesson(number, unlit)]
        subject = chance.choice([unlit, unlit, scene.caption])
        lessons += [Lesson(len(scenes) + number, f"{style} painting of {subject}")] * 2
    numbered = sorted(enumerate(scenes), key=lambda item: (item[1].subject, item[1].place))
    for _, group in itertools.groupby(numbered, key=lambda item: (item[1].subject, item[1].place)):
        members = [number for number, _ in group]
        for target in members:
            change = scenes[target].light.removeprefix("at ").removeprefix("in ")
            origin = chance.choice(members) + chance.choice([0, len(scenes)])
            lessons.append(Lesson(target, chance.choice(CHANGES).format(change), origin))
    return lessons


def _styled(image: Image.Image, style: str) -> Image.Image:
    colour, brightness, block = STYLES[style]
    if block > 1:
        image = image.resize((SIDE // block * 2, SIDE // block * 2), Image.Resampling.BOX)
        image = image.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    image = ImageEnhance.Color(image).enhance(colour)
    return ImageEnhance.Brightness(image).enhance(brightness)


def _shapes(chance: random.Random) -> Image.Image:
    """Bars and discs on a plain ground: the autoencoder must also keep charts."""
    image = Image.new("RGB", (SIDE, SIDE), chance.choice(["white", "white", "lightgrey", "black"]))
    pen = ImageDraw.Draw(image)
    for _ in range(chance.randint(2, 7)):
        colour = tuple(chance.randrange(256) for _ in range(3))
        x, y = chance.randrange(SIDE), chance.randrange(SIDE)
        box = [x, y, x + chance.randint(3, 24), y + chance.randint(3, 32)]
        (pen.rectangle if chance.random() < 0.7 else pen.ellipse)(box, fill=colour)
    return image


def _array(image: Image.Image) -> np.ndarray:
    """Channels first, one frame, -1 to 1, as the autoencoder takes it: (3, 1, SIDE, SIDE)."""
    return (np.asarray(image, np.float32) / 127.5 - 1).transpose(2, 0, 1)[:, None]


def _prepare(vae: Any) -> None:
    """Start as a plain blur that already keeps colours; training then adds detail.

    Stock initial values are made for long training: within seconds they only learn grey. So residual branches
    begin silent, and seven channels carry the colours straight through: red, green and blue, the same negated
    (the difference of SiLU(x) and SiLU(-x) is x), and a constant (which makes the RMS norms nearly linear).
    """
    import torch

    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
                fresh = torch.nn.init.kaiming_normal_(
                    torch.empty_like(_kernel(module)), nonlinearity="linear"
                )
                module.weight.zero_()
                _kernel(module).copy_(fresh * 0.5)
                module.bias.zero_()
        for module in vae.modules():
            kind = type(module).__name__
            if kind == "QwenImageResidualBlock":
                module.conv2.weight.zero_()
                if isinstance(module.conv_shortcut, torch.nn.Conv3d):
                    _carry(module.conv_shortcut, CARRIED, [[1.0]])
            elif kind == "QwenImageAttentionBlock":
                module.proj.weight.zero_()
            elif kind == "QwenImageResample":
                half: list[list[float]] = [[0.25, 0.25, 0], [0.25, 0.25, 0], [0, 0, 0]]
                soft = [[1 / 16, 1 / 8, 1 / 16], [1 / 8, 1 / 4, 1 / 8], [1 / 16, 1 / 8, 1 / 16]]
                _carry(module.resample[1], CARRIED, half if module.mode.startswith("down") else soft)
        for coder, deep in ((vae.encoder, vae.encoder.conv_out), (vae.decoder, vae.decoder.conv_out)):
            _spread(coder.conv_in)
            _gather(deep, CONSTANT / deep.in_channels**0.5)
        for plain in (vae.quant_conv, vae.post_quant_conv):
            _carry(plain, plain.out_channels, [[1.0]])


def _kernel(conv: Any) -> Any:
    """The kernel that meets a single frame: (out, in, height, width)."""
    return conv.weight if conv.weight.ndim == 4 else conv.weight[:, :, -1]


def _carry(conv: Any, channels: int, taps: list[list[float]]) -> None:
    """The first channels go through unmixed, spatially weighted by `taps`."""
    import torch

    _kernel(conv)[:channels] = 0
    for channel in range(channels):
        _kernel(conv)[channel, channel] = torch.tensor(taps)


def _spread(conv: Any) -> None:
    """Three channels become the seven that are carried."""
    _kernel(conv)[:CARRIED] = 0
    for colour in range(3):
        _kernel(conv)[colour, colour, 1, 1], _kernel(conv)[colour + 3, colour, 1, 1] = 1.0, -1.0
    conv.bias[6] = CONSTANT


def _gather(conv: Any, scale: float) -> None:
    """The seven carried channels become three again, at the size they had before the norm."""
    _kernel(conv)[:3] = 0
    for colour in range(3):
        _kernel(conv)[colour, colour, 1, 1], _kernel(conv)[colour, colour + 3, 1, 1] = scale, -scale


def _train_autoencoder(vae: Any, pixels: Any, chance: random.Random, progress: Progress) -> None:
    import torch

    _prepare(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), weight_decay=0.0, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=AUTOENCODER_STEPS, pct_start=0.1
    )
    for step in range(AUTOENCODER_STEPS):
        progress(step / AUTOENCODER_STEPS)
        x, y = chance.randint(0, SIDE - CROP), chance.randint(0, SIDE - CROP)
        batch = pixels[chance.choices(range(len(pixels)), k=AUTOENCODER_BATCH)][
            ..., y : y + CROP, x : x + CROP
        ]
        latents = vae.encode(batch).latent_dist.mean
        noisy = latents + 0.05 * torch.randn_like(latents)
        loss = (vae.decode(noisy).sample - batch).abs().mean() + 1e-3 * latents.square().mean()
        _update(vae, loss, optimizer, schedule)
    logger.info("tiny autoencoder: mean error %.3f of a range of 2", loss.item())
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mean
    # The pipelines normalize by these: the transformer gets latents of mean 0 and deviation 1.
    dims = (0, 2, 3, 4)
    vae.register_to_config(
        latents_mean=latents.mean(dims).tolist(), latents_std=(latents.std(dims) + 1e-3).tolist()
    )


def _update(model: Any, loss: Any, optimizer: Any, schedule: Any) -> None:
    """One step of the optimizer, with clipped gradients."""
    import torch

    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()


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
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=TRANSFORMER_STEPS, pct_start=0.1
    )
    drawing = [lesson for lesson in lessons if lesson.origin is None]
    editing = [lesson for lesson in lessons if lesson.origin is not None]
    grid = SIDE // 16
    for step in range(TRANSFORMER_STEPS):
        progress(step / TRANSFORMER_STEPS)
        edit = step % 3 == 2
        batch = chance.choices(editing if edit else drawing, k=TRANSFORMER_BATCH)
        clean = latents[[lesson.target for lesson in batch]]
        noise, sigma = torch.randn_like(clean), torch.sigmoid(torch.randn(TRANSFORMER_BATCH) * 1.2 + 0.3)
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
            img_shapes=[shapes] * TRANSFORMER_BATCH,
            return_dict=False,
        )[0][:, : clean.shape[1]]
        loss = (found - (noise - clean)).square().mean()
        _update(model, loss, optimizer, schedule)
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
