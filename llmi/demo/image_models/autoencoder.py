"""Trains the tiny autoencoder to keep a picture, from weights that already keep its colours."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Iterator
from typing import Any

from llmi.demo.image_models.lessons import SIDE
from llmi.demo.image_models.optimizing import Progress, update

logger = logging.getLogger(__name__)

STEPS, BATCH = 120, 16
CARRIED, CONSTANT = 7, 4.0  # channels that begin as a straight way through: see _prepare
# Training on crops: a quarter of the work, and it is the same everywhere in a picture.
CROP = 32


@contextlib.contextmanager
def flat_convolutions() -> Iterator[None]:
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


def train_autoencoder(vae: Any, pixels: Any, chance: random.Random, progress: Progress) -> None:
    import torch

    _prepare(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), weight_decay=0.0, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS, pct_start=0.1)
    for step in range(STEPS):
        progress(step / STEPS)
        x, y = chance.randint(0, SIDE - CROP), chance.randint(0, SIDE - CROP)
        batch = pixels[chance.choices(range(len(pixels)), k=BATCH)][..., y : y + CROP, x : x + CROP]
        latents = vae.encode(batch).latent_dist.mean
        noisy = latents + 0.05 * torch.randn_like(latents)
        loss = (vae.decode(noisy).sample - batch).abs().mean() + 1e-3 * latents.square().mean()
        update(vae, loss, optimizer, schedule)
    logger.info("tiny autoencoder: mean error %.3f of a range of 2", loss.item())
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mean
    # The pipelines normalize by these: the transformer gets latents of mean 0 and deviation 1.
    dims = (0, 2, 3, 4)
    vae.register_to_config(
        latents_mean=latents.mean(dims).tolist(), latents_std=(latents.std(dims) + 1e-3).tolist()
    )


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
