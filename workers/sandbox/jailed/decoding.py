"""The job that decodes an image: untrusted encoded bytes in, plain pixels out.

Invariants:
- the type is read from the bytes and must be in `FORMATS` (no SVG, no TIFF, no PDF);
- the number of pixels is checked before decoding;
- only the first frame is kept, rotated as its EXIF data say, and decoded to its last row;
- the result is pixels in mode L, RGB or RGBA, and nothing else of the input.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

from workers.sandbox.jailed.child import Report

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_LOSSY = ("JPEG", "MPO")  # MPO: several JPEGs in one file, as some phones write


class _Refused(Exception):
    """A well-formed image that the options exclude."""


def warm(_: str) -> Any:
    """Import Pillow with every decoder that a job may need, use each once, and return `decode`."""
    from PIL import Image
    from PIL import MpoImagePlugin as _mpo  # noqa: F401 - the JPEG decoder may need it
    from PIL import TiffImagePlugin as _tiff  # noqa: F401 - reads EXIF
    from PIL import WebPImagePlugin as _webp  # noqa: F401 - else the first WebP loads all of Pillow's formats

    options = {"max_pixels": 1024, "min_side": 1, "max_side": 8}
    for name in FORMATS:
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16)).save(buffer, name)
        decode(options, buffer.getvalue())
    return decode


def decode(options: dict[str, Any], data: bytes | memoryview) -> Report:
    """Decode `data`: the pixels row by row with their mode and size, or why there are none.

    `options`: the fields of `workers.sandbox.decoders.DecodeOptions`.
    """
    try:
        image, lossy = _first_frame(data, options["max_pixels"], options["min_side"])
        image.thumbnail((options["max_side"], options["max_side"]), _lanczos())
        header = {"status": "decoded", "mode": image.mode, "size": image.size, "lossy": lossy}
        pixels = image.tobytes()
        return Report(header, len(pixels), (pixels,))
    except MemoryError:
        return Report({"status": "memory"})
    except _Refused as error:
        return Report({"status": "refused", "detail": str(error)})
    except Exception as error:  # noqa: BLE001 - decoders raise anything on malformed bytes
        if type(error).__name__ == "UnidentifiedImageError":  # its message contains a memory address
            return Report({"status": "refused", "detail": f"not a readable image of {', '.join(FORMATS)}"})
        detail = f"not a readable image: {type(error).__name__}: {error}"
        return Report({"status": "refused", "detail": detail.encode(errors="replace").decode()[:300]})


def _first_frame(data: bytes | memoryview, max_pixels: int, min_side: int) -> tuple[Image.Image, bool]:
    """The first frame in a plain mode, and whether it came from a lossy format."""
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data), formats=FORMATS) as source:
            width, height = source.size
            if width * height > max_pixels:
                raise _Refused(f"{width}x{height} pixels are over the limit")
            if min(width, height) < min_side:
                raise _Refused(f"{width}x{height} pixels are too few for an image")
            lossy = source.format in _LOSSY or (source.format == "WEBP" and source.mode == "RGB")
            source.load()
            ImageOps.exif_transpose(source, in_place=True)
            return _plain(source), lossy


def _plain(image: Image.Image) -> Image.Image:
    """Convert any mode (palettes, grey with alpha, CMYK, 1 and 16 bits) to L, RGB or RGBA."""
    if image.mode == "RGBA" or (image.mode in ("L", "RGB") and not image.has_transparency_data):
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode.startswith("I") or image.mode == "F":
        # 16 and 32 bits: convert() would clip to white, so the range is mapped instead.
        low, high = image.convert("F").getextrema()
        scale = 255.0 / max(float(high) - float(low), 1e-6)  # type: ignore[arg-type]
        return image.convert("F").point(lambda v: v * scale - float(low) * scale).convert("L")  # type: ignore[arg-type]
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _lanczos() -> Any:
    from PIL import Image

    return Image.Resampling.LANCZOS
