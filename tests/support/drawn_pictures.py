"""Charts, cards, photo-like pictures and copies of them. For the tests of repeated images."""

from __future__ import annotations

import io
import math
import random

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

SIZE = (320, 240)
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728")


def chart(seed: int) -> Image.Image:
    """A line, bar, pie or scatter chart, or a curve. Charts of a kind differ in their data only."""
    rng = random.Random(seed)
    image = Image.new("RGB", SIZE, "white")
    pen = ImageDraw.Draw(image)
    width, height = SIZE
    left, top, right, bottom = 30, 20, width - 10, height - 25
    pen.rectangle([left, top, right, bottom], outline="black")
    for tick in range(5):
        y = top + (bottom - top) * tick / 4
        pen.text((4, y - 5), str(100 - 25 * tick), fill="black")

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * x, bottom - (bottom - top) * y

    match seed % 5:
        case 0:
            pen.line([at(n / 11, rng.random()) for n in range(12)], fill=COLOURS[0], width=2)
        case 1:
            for bar in range(6):
                x, y = at((bar + 0.1) / 6, rng.random())
                pen.rectangle([x, y, x + (right - left) * 0.8 / 6, bottom], fill=COLOURS[0])
        case 2:
            shares, start = [rng.random() + 0.1 for _ in range(4)], 0.0
            for share, colour in zip(shares, COLOURS, strict=True):
                end = start + 360 * share / sum(shares)
                pen.pieslice([90, 40, 230, 180], start, end, fill=colour)
                start = end
        case 3:
            for _ in range(30):
                x, y = at(rng.random(), rng.random())
                pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=COLOURS[0])
        case _:
            high, shift = rng.uniform(0.1, 0.5), rng.uniform(0, 6)
            curve = [at(n / 60, 0.5 + high * math.sin(shift + 9 * n / 60)) for n in range(61)]
            pen.line(curve, fill=COLOURS[1], width=2)
    return image


def plotted(title: str, *, threshold: bool = False) -> Image.Image:
    """A chart by Matplotlib in its default size, 640 by 480. `threshold`: with a thin dashed line."""
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 3, 2, 5])
    axes.set_title(title)
    if threshold:
        axes.axhline(2.5, linestyle="--", linewidth=0.8)
    buffer = io.BytesIO()
    figure.savefig(buffer)
    return Image.open(buffer).convert("RGB")


def card(text: str, colours: tuple[str, str] = ("#285aa0", "#78b478")) -> Image.Image:
    """White text on a vertical gradient, as an image model draws a slide."""
    ground = Image.composite(
        *(Image.new("RGB", (1024, 1024), colour) for colour in colours),
        Image.linear_gradient("L").resize((1024, 1024)),
    )
    ImageDraw.Draw(ground).text((512, 512), text, font=ImageFont.load_default(70), fill="white", anchor="mm")
    return ground


def photograph(seed: int) -> Image.Image:
    """Coloured noise with the spectrum of a photograph."""
    rng = np.random.default_rng(seed)
    width, height = SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1
    shared = rng.normal(size=(height, width))
    channels = []
    for _ in range(3):
        white = 0.8 * shared + 0.4 * rng.normal(size=(height, width))
        plane = np.fft.ifft2(np.fft.fft2(white) / frequency**1.2).real
        channels.append((plane - plane.min()) / np.ptp(plane))
    return Image.fromarray((np.stack(channels, axis=-1) * 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def copies(image: Image.Image) -> dict[str, Image.Image]:
    """The same picture as other sites would have it."""
    width, height = image.size
    half = image.resize((width // 2, height // 2), Image.Resampling.LANCZOS)
    marked = image.copy()
    ImageDraw.Draw(marked).text((width - 70, height - 14), "(c) site.com", fill="#888")
    return {
        "poor": jpeg(image, 35),
        "half": half,
        "poor half": jpeg(half, 50),
        "larger": image.resize((width * 4 // 3, height * 4 // 3), Image.Resampling.BICUBIC),
        "cropped": image.crop((width // 100, height // 100, width - width // 100, height - height // 100)),
        "marked": marked,
        "brighter": image.point(lambda level: min(255, int(level * 1.05))),
    }
