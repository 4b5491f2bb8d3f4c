"""Broken images of every kind: the validation refuses them, or returns a small valid one."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workers import images, pixels
from workers.errors import Cause, InfrastructureFault

LIMITS = pixels.ImageLimits(max_bytes=100_000, max_pixels=100_000, max_side=48)


def drawn(mode: str, size: tuple[int, int] = (40, 32)) -> Image.Image:
    return Image.effect_noise(size, 90).convert("RGB").convert(mode)


def coded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


TURNED = Image.Exif()
TURNED[0x0112] = 6  # by a quarter
WHOLE = {
    "png": coded(drawn("RGB"), "PNG"),
    "png palette": coded(drawn("P"), "PNG", transparency=0),
    "png 16": coded(Image.new("I;16", (40, 32), 900), "PNG"),
    "png grey alpha": coded(drawn("LA"), "PNG"),
    "jpeg": coded(drawn("RGB"), "JPEG"),
    "jpeg progressive": coded(drawn("CMYK"), "JPEG", progressive=True),
    "jpeg exif": coded(drawn("L"), "JPEG", exif=TURNED),
    "gif": coded(drawn("P"), "GIF", save_all=True, append_images=[drawn("P"), drawn("P")]),
    "webp": coded(drawn("RGB"), "WEBP"),
    "webp lossless": coded(drawn("RGBA"), "WEBP", lossless=True),
    "bmp": coded(drawn("RGB"), "BMP"),
    "bmp palette": coded(drawn("P"), "BMP"),
}  # fmt: skip
NUMBERS = [0, 1, 7, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]


def sealed(data: bytes) -> bytes:
    """A PNG whose chunks have the right checksums again: else Pillow looks no further. Others as they are."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(out) + data[at:]


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """An image with bytes or numbers changed, pieces taken out or doubled, another's end, or cut short."""
    data = bytearray(WHOLE[draw(st.sampled_from(sorted(WHOLE)))])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)) | st.integers(0, min(64, max(0, len(data) - 1))))
        length = draw(st.integers(1, 40))
        match draw(st.sampled_from(["byte", "number", "remove", "double", "other", "cut"])):
            case "byte":
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "number":
                order = draw(st.sampled_from([">I", "<I"]))
                data[at : at + 4] = struct.pack(order, draw(st.sampled_from(NUMBERS)))
            case "remove":
                del data[at : at + length]
            case "double":
                data[at:at] = data[at : at + length]
            case "other":
                data[at:] = WHOLE[draw(st.sampled_from(sorted(WHOLE)))][at:]
            case "cut":
                del data[at:]
    return sealed(bytes(data))


def whole_or_refused(ask: Callable[[], Image.Image]) -> None:
    try:
        image = ask()
    except InfrastructureFault as error:
        if error.cause is Cause.BAD_ANSWER:
            return
        raise
    image.load()
    assert image.mode in ("L", "RGB", "RGBA")
    assert 1 <= min(image.size) <= max(image.size) <= LIMITS.max_side
    assert not image.getexif()
    assert getattr(image, "n_frames", 1) == 1


@settings(max_examples=300)
@given(broken() | st.binary(max_size=200))
def test_an_accepted_image_is_valid(data: bytes) -> None:
    def checked() -> Image.Image:
        out = images.checked(data, limits=LIMITS)
        assert out.startswith((b"\x89PNG", b"\xff\xd8"))
        return Image.open(io.BytesIO(out))

    whole_or_refused(checked)


@settings(max_examples=100)
@given(broken())
def test_an_image_for_an_edit_model_is_valid(data: bytes) -> None:
    whole_or_refused(lambda: images.rgb(data, limits=LIMITS))


@pytest.mark.parametrize("kind", WHOLE)
def test_each_is_let_through_before_it_is_broken(kind: str) -> None:
    out = Image.open(io.BytesIO(images.checked(WHOLE[kind], limits=LIMITS)))
    assert max(out.size) == 40
    assert sealed(WHOLE[kind]) == WHOLE[kind]
