"""Files that claim to be images, made to crash, slow down or deceive a decoder.

`REFUSED` must not pass validation; `POLYGLOTS` are images and something else too, marked by `FOREIGN`: they
may pass, without it.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Any

from PIL import Image

FOREIGN = b"<script>alert(1)</script>"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/>" + FOREIGN + b"</svg>"


def coded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """`image` in a format of Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(kind: str, size: tuple[int, int] = (64, 64), **options: Any) -> bytes:
    """Noise, which does not compress away."""
    return coded(Image.effect_noise(size, 90).convert("RGB"), kind, **options)


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_claiming(width: int, height: int) -> bytes:
    """A PNG with a size claimed in its header, and hardly any data."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def gif_claiming(width: int, height: int, frame: tuple[int, int]) -> bytes:
    """A GIF of one size with a first frame of another, and no pixels."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return screen + b"\x2c" + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x4c\x01\x00\x3b"


def gif_of_frames(frames: int) -> bytes:
    """A small GIF that goes on and on."""
    still = coded(Image.new("P", (64, 64)), "GIF")
    start = still.index(b"\x2c")
    return still[:start] + still[start:-1] * frames + b"\x3b"


def bmp_claiming(width: int, height: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 99, 0, 0, 54) + head + bytes(99)


def webp_claiming(width: int, height: int) -> bytes:
    """An extended WebP of a claimed size, around an image of another."""
    whole = coded(Image.new("RGB", (16, 16)), "WEBP")
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0) + canvas + whole[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG that goes over its pixels again and again: few bytes, hours of work."""
    whole = coded(Image.new("L", (side, side)), "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * scans + b"\xff\xd9"


def _zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("index.html", FOREIGN)
    return buffer.getvalue()


def _png_with_text() -> bytes:
    whole = photograph("PNG")
    place = whole.index(b"IDAT") - 4
    return whole[:place] + chunk(b"tEXt", b"Comment\0" + FOREIGN) + whole[place:]


def _gif_that_is_a_script() -> bytes:
    """`GIF89a/*...*/=1;alert(1)`: its width spells the beginning of a comment."""
    whole = bytearray(coded(Image.new("P", (0x2A2F, 256)), "GIF"))
    assert whole[6:8] == b"/*"
    return bytes(whole) + b"*/=1;" + FOREIGN


REFUSED: dict[str, bytes] = {
    "png-claims-gigapixels.png": png_claiming(60_000, 60_000),
    "png-holds-megapixels.png": coded(Image.new("1", (10_000, 10_000))),
    "gif-claims-gigapixels.gif": gif_claiming(65_535, 65_535, (16, 16)),
    "gif-with-a-huge-frame.gif": gif_claiming(16, 16, (65_535, 65_535)),
    "bmp-claims-gigapixels.bmp": bmp_claiming(60_000, 60_000),
    "webp-claims-megapixels.webp": webp_claiming(16_000, 16_000),
    "truncated.png": photograph("PNG")[:-3000],
    "truncated.jpeg": photograph("JPEG")[:-1000],
    "truncated.webp": photograph("WEBP")[:-1000],
    "truncated.gif": photograph("GIF")[:-1000],
    "truncated.bmp": photograph("BMP")[:-1000],
    "vectors.svg": SVG,
    "vectors.svgz": zlib.compress(SVG, wbits=31),
    "page.html": b"<!doctype html><img src=x onerror=alert(1)>",
    "paper.pdf": b"%PDF-1.7\n" + FOREIGN,
    "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n(%pipe%id) (w) file\n%%EOF\n",
    "archive.zip": _zipped(),
    "deep.tiff": coded(Image.new("RGB", (64, 64)), "TIFF"),
    "tracker.gif": coded(Image.new("P", (1, 1)), "GIF"),
}
POLYGLOTS: dict[str, bytes] = {
    "gif-and-script.gif": _gif_that_is_a_script(),
    "gif-and-zip.gif": photograph("GIF") + _zipped(),
    "png-and-zip.png": photograph("PNG") + _zipped(),
    "png-and-page.png": _png_with_text(),
    "jpeg-and-page.jpeg": photograph("JPEG", comment=FOREIGN),
    "jpeg-and-more.jpeg": photograph("JPEG") + SVG,
    "webp-and-page.webp": photograph("WEBP", xmp=FOREIGN),
    "bmp-and-zip.bmp": photograph("BMP") + _zipped(),
}
