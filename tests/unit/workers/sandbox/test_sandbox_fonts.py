"""Charts have glyphs for every script with any font family, or fail with the missing characters."""

from __future__ import annotations

import io

import pytest
from PIL import Image, ImageChops
from sandbox_worlds import failure, shared

from workers.errors import Cause
from workers.sandbox.charts import fonts
from workers.sandbox.renderer import Renderer
from workers.settings import CodeSettings

SETTINGS = CodeSettings(require=())
SCRIPTS = {
    "Chinese, simplified": "销售额",
    "Chinese, traditional": "銷售額",
    "Japanese": "かなカナ漢字",
    "Korean": "매출액",
    "Arabic": "المبيعات",
    "Persian": "فروش",
    "Hebrew": "מכירות",
    "Devanagari": "बिक्री",
    "Bengali": "বিক্রয়",
    "Tamil": "விற்பனை",
    "Thai": "ยอดขาย",
    "Greek": "πωλήσεις",
    "Cyrillic": "продажи",
    "Armenian": "վաճառք",
    "Georgian": "გაყიდვები",
    "Amharic": "ሽያጭ",
    "emoji": "😀❤️🚀",
    "symbols": "✓→★☂",
}
FAMILIES = {
    "none named": "",
    "a Chinese font of Windows": "plt.rcParams['font.sans-serif'] = ['SimHei']; ",
    "only a family that is not there": "plt.rcParams['font.family'] = 'Microsoft YaHei'; ",
    "serif": "plt.rcParams['font.family'] = 'serif'; ",
    "monospace": "plt.rcParams['font.family'] = ['monospace']; ",
    "a style": "plt.style.use('ggplot'); ",
    "seaborn": "sns.set_theme(font='Arial'); ",
}


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return shared("here")


def text(string: str, **properties: str) -> str:
    return f"plt.figure(figsize=(2, 1)).text(0.1, 0.4, {string!r}, **{properties!r})"


def drawn(renderer: Renderer, code: str) -> Image.Image:
    return Image.open(io.BytesIO(renderer.render(code, SETTINGS).images[0])).convert("L")


@pytest.mark.parametrize("string", SCRIPTS.values(), ids=SCRIPTS)
def test_every_script_has_glyphs(renderer: Renderer, string: str) -> None:
    assert drawn(renderer, text(string)).getextrema()[0] < 128


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_glyphs_are_found_with_any_font_family(renderer: Renderer, family: str) -> None:
    drawn(renderer, family + text("销售额 매출액 ยอดขาย"))


PLACES = {
    "title": "plt.plot([1]); plt.title('销售')",
    "a property": "plt.plot([1]); plt.title('销售', fontname='Times New Roman')",
    "properties": "from matplotlib.font_manager import FontProperties as F; plt.plot([1]); "
    "plt.xlabel('销售', fontproperties=F(family='SimSun', weight='bold'))",
    "bold and slanted": "plt.plot([1]); plt.title('销售', fontweight='bold', fontstyle='italic')",
    "ticks": "plt.bar(['北京', '上海'], [1, 2])",
    "legend": "plt.plot([1], label='销售'); plt.legend(prop={'family': 'Helvetica'})",
    "annotation": "plt.plot([1]); plt.annotate('销售', (0, 1))",
    "table": "plt.table([['销售']]); plt.axis('off')",
    "pie": "plt.pie([1, 2], labels=['男', '女'], autopct='%d')",
    "within a formula": "plt.plot([1]); plt.title('成本($)与利润($)')",
    "a formula": r"plt.plot([1]); plt.title(r'面积 $x^2 + 面$')",
    "stix": "plt.rcParams['mathtext.fontset'] = 'stix'; plt.plot([1]); plt.title('$x^2 + 面$')",
}


@pytest.mark.parametrize("code", PLACES.values(), ids=PLACES)
def test_glyphs_are_found_in_every_kind_of_text(renderer: Renderer, code: str) -> None:
    drawn(renderer, code)


def test_different_characters_look_different(renderer: Renderer) -> None:
    """Boxes would look the same."""
    one, other = (drawn(renderer, text(string)) for string in ("销", "售"))
    assert one.size != other.size or ImageChops.difference(one, other).getbbox()


WITHOUT_GLYPH = {
    "private use": (r"x = '\U000f0000'", "U+F0000"),
    "unassigned": (r"x = 'a\u0378'", "U+0378"),
    "in a formula": (r"x = '$x \u0378$'", "U+0378"),
}


@pytest.mark.parametrize(("assignment", "named"), WITHOUT_GLYPH.values(), ids=WITHOUT_GLYPH)
def test_a_character_that_no_font_has_is_named(renderer: Renderer, assignment: str, named: str) -> None:
    error = failure(renderer, f"{assignment}; plt.plot([1]); plt.title(x)", SETTINGS)
    assert error.cause is Cause.GLYPH_MISSING
    assert named in error.detail
    assert "fonts-noto" in error.detail


INVISIBLE = {
    "a tab": r"'a\tb'",
    "a joiner": r"'a\u200db'",
    "a variation selector": r"'☂\ufe0f'",
    "a line break": r"'a\nb'",
    "a hard space": r"'a\u00a0b'",
    "a direction": r"'\u202aab\u202c'",
    "a byte order mark": r"'\ufeffa'",
}


@pytest.mark.parametrize("literal", INVISIBLE.values(), ids=INVISIBLE)
def test_invisible_characters_need_no_glyph(renderer: Renderer, literal: str) -> None:
    drawn(renderer, f"plt.plot([1]); plt.title({literal})")


def test_a_saved_figure_with_a_missing_character_is_a_failure_too(renderer: Renderer) -> None:
    code = r"plt.plot([1]); plt.title('\u0378'); plt.savefig('x.png'); plt.close()"
    assert failure(renderer, code, SETTINGS).cause is Cause.GLYPH_MISSING


def test_the_fonts_of_the_packages_are_installed() -> None:
    assert fonts.lacking() == []
    assert len(fonts.packaged()) > 20
