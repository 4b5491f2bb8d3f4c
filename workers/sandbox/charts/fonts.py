"""Fallback fonts for every script, after the family that the code names (matplotlib 3.11).

Invariants:
- fonts of the packages come before those of the machine, so that charts look the same everywhere;
- a character without a glyph in any installed font is an error, never a box;
- a font file is opened only when a text needs it, because jobs may open few files.

matplotlib has no setting for fallback fonts of every family. So `Text.set_text` is wrapped to see which
characters are used, and two private names are overridden: `FontManager._find_fonts_by_props` (plain text) and
`UnicodeFonts._get_glyph` (mathtext). Remove this when tests/unit/workers/sandbox/test_sandbox_fonts.py passes
with an empty `install`.
"""

from __future__ import annotations

import importlib.util
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# SIL Open Font License: Noto Sans for 20 scripts, emoji and symbols; one font for Han, Kana and Hangul.
PACKAGES = ("manimgx_fonts", "noto_cjk_sans_jp_regular")
DEBIAN = "fonts-noto-core (most scripts) or fonts-noto-cjk (Chinese, Japanese, Korean)"
_MOST_FONTS = 2000  # of the machine, searched for a rare character
_FIRST = "\u0250"  # the characters before it are Latin, which every font has
_LAST_RESORT = "Last Resort"  # matplotlib's own, whose glyphs are boxes
_BOX = 0xA4  # mathtext draws the currency sign for a missing character


def packaged() -> list[Path]:
    """The font files of the installed packages, in a fixed order."""
    files: list[Path] = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        for folder in (spec and spec.submodule_search_locations) or ():
            found = sorted(Path(folder).glob("*.[ot]tf"))
            files += [file for file in found if "Italic" not in file.name]
    return files


class Fallback:
    """The fonts that are tried after those that the code names."""

    def __init__(self) -> None:
        from matplotlib import font_manager

        self._manager = font_manager.fontManager
        self._get = font_manager.get_font
        # The font for each character used so far; "" if no font has it.
        self._where: dict[int, str] = {}
        self._paths: list[str] = []

    def install(self) -> None:
        """Make matplotlib use these fonts in this process, for plain text and mathtext."""
        from matplotlib import _mathtext, text
        from matplotlib.ft2font import FT2Font

        for path in (self._manager.findfont("DejaVu Sans"), *map(str, packaged())):
            self._manager.addfont(path)  # so that the code may name its family
            for code in FT2Font(path).get_charmap():  # closes the file at once; `get_font` keeps it open
                self._where.setdefault(code, str(path))
        manager: Any = self._manager
        artist: Any = text.Text
        find, set_text = manager._find_fonts_by_props, artist.set_text

        def set_needed_text(label: Any, string: object) -> None:
            set_text(label, string)
            self._need(label.get_text())

        artist.set_text = set_needed_text
        manager._find_fonts_by_props = lambda *args, **kwargs: [*find(*args, **kwargs), *self._paths]
        _mathtext.UnicodeFonts._get_glyph = self._mathtext_glyph(_mathtext.UnicodeFonts._get_glyph)

    def missing(self, figure: Any) -> set[str]:
        """The characters in the figure's texts that no installed font has."""
        from matplotlib.text import Text

        texts = [text.get_text() for text in figure.findobj(Text) if text.get_visible()]
        return {char for char in set("".join(texts)) if _visible(char) and self._where.get(ord(char)) == ""}

    def _need(self, string: str) -> None:
        """Add the fonts for these characters to the fallback fonts."""
        for code in {ord(char) for char in string if char >= _FIRST and _visible(char)}:
            if code not in self._where:
                self._where[code] = self._search(code)
            path = self._where[code]
            if path and path not in self._paths:
                self._paths.append(path)

    def _search(self, code: int) -> str:
        """The first font of the machine that has the character; "" if none has."""
        for entry in self._manager.ttflist[:_MOST_FONTS]:
            if not entry.name.startswith(_LAST_RESORT) and self._has(entry.fname, code):
                return entry.fname
        return ""

    def _has(self, path: str, code: int) -> bool:
        from matplotlib.ft2font import FT2Font

        try:
            return bool(FT2Font(path).get_char_index(code))
        except (OSError, RuntimeError):  # removed since it was listed, or not a font
            return False

    def _mathtext_glyph(self, original: Callable[..., tuple]) -> Callable[..., tuple]:
        def glyph(fonts: Any, fontname: str, font_class: str, sym: str) -> tuple:
            font, index, slanted = original(fonts, fontname, font_class, sym)
            path = self._where.get(ord(sym)) if len(sym) == 1 else None
            if index == _BOX and path and ord(sym) != _BOX:
                return self._get(path), ord(sym), False
            return font, index, slanted

        return glyph


def explain(missing: Iterable[str]) -> str:
    """A message that names the characters without a glyph and what to install."""
    chars = sorted(missing)
    shown = ", ".join(f"{char} (U+{ord(char):04X} {unicodedata.name(char, 'unnamed')})" for char in chars[:5])
    more = f" and {len(chars) - 5} more" if len(chars) > 5 else ""
    return f"no installed font has {shown}{more}; use other characters, or install a font: {DEBIAN}"


def lacking() -> list[str]:
    """The font packages that are not installed."""
    return [name for name in PACKAGES if not importlib.util.find_spec(name)]


def _visible(char: str) -> bool:
    """Whether the character has a glyph: it is no control character, space, joiner or variation selector."""
    selector = "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"
    return not selector and unicodedata.category(char) not in ("Cc", "Cf", "Zs", "Zl", "Zp")
