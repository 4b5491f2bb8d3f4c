"""Ordinary charts; each defect of the original project is a test."""

from __future__ import annotations

import io
from importlib.metadata import version

import pytest
from PIL import Image, ImageChops, ImageStat
from sandbox_worlds import failure, shared

from policy.grammar.prompts import system_prompt
from workers.errors import Cause
from workers.sandbox.charts import style as charts
from workers.sandbox.renderer import Renderer
from workers.settings import CodeSettings

SETTINGS = CodeSettings(require=())


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return shared("here")


def _same(renderer: Renderer, one: str, other: str) -> bool:
    return renderer.render(one, SETTINGS) == renderer.render(other, SETTINGS)


def test_a_chart_is_a_png_of_its_own_size(renderer: Renderer) -> None:
    (image,) = renderer.render("plt.plot([1, 2, 3]); plt.title('A line')", SETTINGS).images
    with Image.open(io.BytesIO(image)) as opened:
        assert opened.format == "PNG"
        assert 400 < opened.width < 700
        assert len(opened.getcolors(1 << 20) or []) > 2


LIBRARIES = {
    "seaborn": "sns.set_theme(); sns.barplot(x=['a', 'b'], y=[1, 2])",
    "pandas": "pd.DataFrame({'a': [1, 2]}, index=pd.date_range('2024-01-01', periods=2)).plot()",
    "numpy": "x = np.linspace(0, 1); plt.plot(x, np.linalg.inv(np.eye(50))[0])",
    "a style": "plt.style.use('ggplot'); plt.hist(np.random.randn(100))",
    "three dimensions": "plt.subplot(projection='3d').scatter([1], [2], [3])",
    "a second import": "import matplotlib.pyplot as p, datetime, json, statistics, colorsys; p.pie([1, 2])",
    "annotations": "from dataclasses import dataclass as d\n@d\nclass A:\n b: int\nplt.plot([A(1).b])",
    "a main guard": "if __name__ == '__main__': plt.plot([1])",
    "a polite end": "plt.plot([1])\nexit()",
    "show": "plt.plot([1]); plt.show()",
    "a figure's show": "f, a = plt.subplots(); a.plot([1]); f.show()",
    "savefig": "import os; plt.plot([1]); plt.savefig('chart.png'); assert os.path.getsize('chart.png')",
    "a temporary file": "import tempfile as t; plt.plot([1])\nwith t.TemporaryFile() as f: plt.savefig(f)",
    "its own place for them": "import os, tempfile as t; plt.plot([1]); assert t.gettempdir() == os.getcwd()",
    "text only": "plt.axis('off'); plt.text(0, 0, 'x')",
    "threads": "import threading; t = threading.Thread(target=plt.plot, args=([1],)); t.start(); t.join()",
}  # fmt: skip


@pytest.mark.parametrize("code", LIBRARIES.values(), ids=LIBRARIES)
def test_libraries_and_features_that_charts_may_use(renderer: Renderer, code: str) -> None:
    assert len(renderer.render(code, SETTINGS).images) == 1


def test_libraries_named_in_the_prompt_can_be_imported(renderer: Renderer) -> None:
    modules = [{"pillow": "PIL"}.get(name, name) for name in charts.LIBRARIES]
    renderer.render(f"import {', '.join(modules)}; plt.plot([1])", SETTINGS)
    assert all(f"{name} {version(name).rsplit('.', 1)[0]}" in system_prompt() for name in ("numpy", "pandas"))
    assert all(name in system_prompt() for name in charts.LIBRARIES)


def test_text_that_is_not_ascii_survives(renderer: Renderer) -> None:
    """The original decoded the code with `unicode_escape`, which turns UTF-8 into noise."""
    written = "plt.figure().text(0.1, 0.5, 'Größe, Ελλάδα, Привет, naïve')"
    escaped = written.encode("unicode_escape").decode()
    assert "\\xf6" in escaped
    assert _same(renderer, written, escaped)


def test_chinese_reaches_the_renderer(renderer: Renderer) -> None:
    code = "t = '销售额（万元）'; plt.title(t); plt.plot([1])\nraise RuntimeError(plt.gca().get_title())"
    assert "销售额（万元）" in failure(renderer, code, SETTINGS).detail


def test_line_breaks_in_literals_survive(renderer: Renderer) -> None:
    with_escape = r"plt.figure().text(0.1, 0.5, 'above\nbelow')"
    assert _same(renderer, with_escape, "plt.figure().text(0.1, 0.5, 'above' + chr(10) + 'below')")


def test_mathtext_survives(renderer: Renderer) -> None:
    r"""`\frac` is not a form feed."""
    raw = r"plt.figure().text(0.1, 0.5, r'$\frac{a}{b}$')"
    assert _same(renderer, raw, "plt.figure().text(0.1, 0.5, '$' + chr(92) + 'frac{a}{b}$')")


def test_printing_does_not_touch_the_image(renderer: Renderer) -> None:
    code = "plt.figure().text(0.1, 0.5, 'x')"
    noisy = f"import sys, os; print('noise' * 10_000); sys.stderr.write('x'); os.write(1, b'y')\n{code}"
    assert _same(renderer, code, noisy)


NOTHING = {
    "no figure": "x = 1",
    "only a comment": "# nothing",
    "an empty figure": "plt.figure()",
    "empty axes": "plt.subplots()",
    "a closed figure": "plt.plot([1]); plt.close()",
}


@pytest.mark.parametrize("code", NOTHING.values(), ids=NOTHING)
def test_drawing_nothing_is_a_failure(renderer: Renderer, code: str) -> None:
    assert failure(renderer, code, SETTINGS).cause is Cause.NO_FIGURE


SAVED = {
    "saved and closed": "plt.plot([1, 2]); plt.savefig('x.png'); plt.close()",
    "closed by figure": "f, a = plt.subplots(); a.plot([1, 2]); f.savefig('x.svg'); plt.close(f)",
    "all closed": "import io; plt.plot([1, 2]); plt.savefig(io.BytesIO()); plt.close('all')",
    "cleared": "plt.plot([1, 2]); plt.savefig('x.pdf'); plt.clf()",
    "axes cleared": "plt.plot([1, 2]); plt.savefig('x.png'); plt.cla()",
    "without pyplot": "from matplotlib.figure import Figure\nf = Figure(); f.subplots().plot([1, 2]); "
    "f.savefig('x.png')",
    "to a folder that is not there": "plt.plot([1, 2]); plt.savefig('/mnt/data/x.png'); plt.close()",
    "to a folder of others": "plt.plot([1, 2]); plt.savefig('/tmp/x.png'); plt.close()",
    "saved twice": "plt.plot([1, 2]); plt.savefig('x.png'); plt.savefig('x.pdf'); plt.close()",
    "saved with its own size": "plt.plot([1, 2]); plt.savefig('x.png', dpi=30); plt.close()",
    "in a function": "def f():\n  plt.plot([1, 2]); plt.savefig('x.png'); plt.close()\nf()",
}


@pytest.mark.parametrize("code", SAVED.values(), ids=SAVED)
def test_a_saved_chart_counts_as_if_it_were_open(renderer: Renderer, code: str) -> None:
    assert _same(renderer, code, "plt.plot([1, 2])")


def test_drawing_after_saving_counts(renderer: Renderer) -> None:
    code = "plt.plot([1, 2]); plt.savefig('x.png'); plt.title('later')"
    assert _same(renderer, code, "plt.plot([1, 2]); plt.title('later')")


def test_saving_does_not_change_the_figure(renderer: Renderer) -> None:
    code = "f, a = plt.subplots(layout='constrained', dpi=70); a.plot([1]); a.text(0.9, 0.5, 'x' * 30); {}"
    saving = code.format("f.savefig('x.png'); a.set_title('t')")
    assert _same(renderer, saving, code.format("a.set_title('t')"))


def test_saved_and_open_figures_keep_their_order(renderer: Renderer) -> None:
    code = (
        "for n in (1, 2, 3):\n"
        "    plt.figure(figsize=(n, 1)).add_axes((0, 0, 1, 1)).plot([1])\n"
        "    if n != 2: plt.savefig(f'{n}.png'); plt.close()"
    )
    drawing = renderer.render(code, SETTINGS)
    widths = [Image.open(io.BytesIO(image)).width for image in drawing.images]
    assert (len(widths), drawing.drawn) == (3, 3)
    assert widths == sorted(widths)


def test_saved_figures_share_the_limit_of_pixels(renderer: Renderer) -> None:
    small = SETTINGS.model_copy(update={"max_pixels": 500_000})
    code = "for n in range(3): plt.figure(); plt.plot([n]); plt.savefig('x.png'); plt.close()"
    drawing = renderer.render(code, small)
    assert (len(drawing.images), drawing.drawn) == (1, 3)


def test_every_figure_is_kept_in_order(renderer: Renderer) -> None:
    """The original kept the last one only."""
    figures = "for n in (1, 2, 3): plt.figure(figsize=(n, 1)).add_axes((0, 0, 1, 1)).plot([1])"
    widths = [Image.open(io.BytesIO(image)).width for image in renderer.render(figures, SETTINGS).images]
    assert len(widths) == 3
    assert widths == sorted(widths)


CUT = {
    "a line": "plt.plot([1, 3, 2])",
    "labels": "plt.plot([1, 3, 2]); plt.xlabel('x'); plt.ylabel('y'); plt.title('A line')",
    "a legend outside": "plt.plot([1, 2], label='a line'); plt.legend(bbox_to_anchor=(1.05, 1))",
    "axes to the edge": "plt.figure(figsize=(3, 3)).add_axes((0, 0, 1, 1)).plot([1])",
    "constrained layout": "f, a = plt.subplots(2, layout='constrained'); a[0].plot([1]); f.suptitle('A')",
    "a map of colours": "plt.imshow(np.eye(5)); plt.colorbar()",
    "three dimensions": "plt.subplot(projection='3d').scatter([1], [2], [3])",
    "an odd size": "plt.figure(figsize=(4.35, 3.3), dpi=130); plt.plot([1, 2])",
    "a resolution for saving": "plt.rcParams['savefig.dpi'] = 150; plt.plot([1, 2])",
    "its own way of cutting": "plt.rcParams['savefig.bbox'] = 'tight'; plt.plot([1, 2])",
    "no ground": "plt.rcParams['savefig.transparent'] = True; plt.plot([1, 2])",
    "a dark ground": "plt.style.use('dark_background'); plt.plot([1, 2])",
    "what only saving draws": "plt.plot([1, 3, 2], animated=True)",
    "a frame": "plt.figure(edgecolor='k', linewidth=8); plt.plot([1, 2])",
    "a late resolution": "plt.plot([1, 2]); plt.gcf().set_dpi(50)",
    "a coarser one for saving": "plt.rcParams['savefig.dpi'] = 50; plt.figure(dpi=200); plt.plot([1, 2])",
    "a layout with an overhang": (
        "f, a = plt.subplots(layout='constrained'); a.plot([1]); a.text(0.9, 0.5, 'x' * 30, in_layout=False)"
    ),
    "its own margin": "plt.rcParams['savefig.pad_inches'] = 0.5; plt.plot([1, 2])",
}


@pytest.mark.parametrize("code", CUT.values(), ids=CUT)
def test_a_chart_is_cropped_like_matplotlibs_tight_box(renderer: Renderer, code: str) -> None:
    """Whole pixels: up to two more, and shifted by less than one; compared in squares of eight."""
    import matplotlib.pyplot as plt
    import numpy as np

    theirs = io.BytesIO()
    with plt.rc_context({"backend": "Agg"}):
        exec(code, {"plt": plt, "np": np})
        plt.savefig(theirs, format="png", bbox_inches="tight")
        plt.close("all")
    (own,) = renderer.render(code, SETTINGS).images
    drawn, wanted = (Image.open(io.BytesIO(image)).convert("RGBA") for image in (own, theirs.getvalue()))
    assert 0 <= drawn.width - wanted.width <= 2
    assert 0 <= drawn.height - wanted.height <= 2
    size = (wanted.width // 8, wanted.height // 8)
    coarse = [
        image.crop((0, 0, *wanted.size)).resize(size, Image.Resampling.BOX) for image in (drawn, wanted)
    ]
    assert max(ImageStat.Stat(ImageChops.difference(*coarse)).mean) < 4


def test_a_transparent_background_stays_transparent(renderer: Renderer) -> None:
    clear = "plt.rcParams['savefig.transparent'] = True; "
    modes = [
        Image.open(io.BytesIO(renderer.render(code + "plt.plot([1])", SETTINGS).images[0])).mode
        for code in ("", clear)
    ]
    assert modes == ["RGB", "RGBA"]


SPECKS = {
    "a speck": "plt.figure(figsize=(0.05, 0.05)).add_axes((0, 0, 1, 1)).plot([1]); plt.axis('off')",
    "a coarse one": "plt.figure(dpi=15).text(0.5, 0.5, 'x')",
    "a thread": "plt.figure(figsize=(120, 0.1)).add_axes((0, 0, 1, 1)).plot([1])",
}


@pytest.mark.parametrize("code", SPECKS.values(), ids=SPECKS)
def test_a_figure_too_small_for_a_judge_is_the_models_fault(renderer: Renderer, code: str) -> None:
    """Regression: it counted as a success, failed at the judge, and so masked a bad sample."""
    error = failure(renderer, "plt.rcParams['savefig.pad_inches'] = 0; " + code, SETTINGS)
    assert error.cause is Cause.CODE_LIMIT
    assert "too narrow" in error.detail


def test_figures_over_the_total_of_pixels_are_not_kept(renderer: Renderer) -> None:
    """The first ones are kept."""
    small = SETTINGS.model_copy(update={"max_pixels": 500_000})
    drawing = renderer.render("for n in range(3): plt.figure(); plt.plot([n])", small)
    assert (len(drawing.images), drawing.drawn) == (1, 3)


RAISED = {
    "name": ("plt.plot([1])\n\nplt.plot(y)", "NameError: name 'y' is not defined (line 3: plt.plot(y))"),
    "within a function": ("def f():\n  1 / 0\nf()", "ZeroDivisionError: division by zero (line 2: 1 / 0)"),
    "syntax": ("plt.plot([1]", "SyntaxError: '(' was never closed (line 1: plt.plot([1])"),
    "within a library": ("x = 1\nplt.plot([1], [1, 2])", "(line 2: plt.plot([1], [1, 2]))"),
    "exit with an error": ("exit(3)", "SystemExit: 3 (line 1: exit(3))"),
    "interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt:"),
    "recursion": ("def f(): f()\nf()", "RecursionError"),
    "broken exception": ("class E(Exception):\n def __str__(self): 1 / 0\nraise E", "E: (no message)"),
    "broken text": ("raise ValueError('\\ud800')", "ValueError: ?"),
    "null": ("plt.plot([1])\0", "null bytes"),
    "surrogate": ("x = '\ud800'", "UnicodeEncodeError"),
    "raised while drawing": ("plt.title('$\\\\frac$'); plt.plot([1])", "ValueError"),
}  # fmt: skip


@pytest.mark.parametrize(("code", "detail"), RAISED.values(), ids=RAISED)
def test_an_exception_is_reported_with_its_line(renderer: Renderer, code: str, detail: str) -> None:
    error = failure(renderer, code, SETTINGS)
    assert error.cause is Cause.CODE_RAISED
    assert detail in error.detail


def test_a_seed_makes_random_charts_repeatable(renderer: Renderer) -> None:
    code = "import random; plt.figure(figsize=(1, 1)).text(0, 0, f'{np.random.rand()} {random.random()}')"
    first, again, other = (renderer.render(code, SETTINGS, seed=seed) for seed in (7, 7, 8))
    assert first == again
    assert first != other
