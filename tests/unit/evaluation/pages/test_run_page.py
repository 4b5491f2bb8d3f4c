"""The page of a run: every document as its reader sees it; no text of a document becomes markup."""

import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from evaluation.pages.curve import EvaluationPoint, Point, draw, smooth
from evaluation.pages.run_page import KeyFigure, Page, Table, render
from evaluation.pages.samples import Pair, Sample, pairs, typical
from evaluation.pages.view import card, details, terms
from policy.document import Document, ImagePart, InvalidPart, Tag, Task, TextPart
from workers.errors import Cause
from workers.messages import Failure, Outcome, Success
from workers.storage.blobs import BlobStore


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    return BlobStore(str(tmp_path_factory.mktemp("blobs")))


@pytest.fixture(scope="module")
def picture(blobs):
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(out, "PNG")
    return blobs.put(out.getvalue())


class Elements(HTMLParser):
    """Every element with its attributes, and the text outside of them."""

    def __init__(self, html):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def tags(self):
        return {tag for tag, _ in self.found}


def image_part(index=0, result=None, description="A lighthouse", source="diffusion", params=None):
    tag = Tag(source=source, description=description, params=params or {"prompt": "a lighthouse"})
    outcome = Outcome(request_id="r", kind=source, result=result) if result else None
    return ImagePart(index=index, tag=tag, raw="", outcome=outcome)


def sample(*parts, step=1, reward=0.5, question="Write.", rollout_id="r", breakdown=None, **task):
    document = Document(rollout_id=rollout_id, task=Task(question=question, **task), parts=parts)
    return Sample(document, step, reward, breakdown or {})


def page(pair, **fields):
    return Page(title="run", lead="", figures=[], pairs=[pair], **fields)


def shown(blobs, *parts, **fields):
    one = sample(*parts, **fields)
    return Elements(render(page(Pair(one, one)), blobs))


def test_images_stand_in_place_with_caption_and_origin(blobs, picture):
    parts = (TextPart(text="before"), image_part(result=Success(images=(picture,))), TextPart(text="after"))
    kinds = [(piece.kind, piece.caption) for piece in card(sample(*parts), blobs).pieces]
    assert kinds == [("text", ""), ("image", "A lighthouse"), ("text", "")]
    html = render(page(Pair(sample(*parts), sample(*parts))), blobs).partition("<body")[2]
    assert html.index("before") < html.index("A lighthouse") < html.index("after")
    assert "Generated" in html
    assert "a lighthouse" in html


def test_input_images_of_both_prompts_are_shown_once_each(blobs, picture):
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "orange").save(out, "PNG")
    other = blobs.put(out.getvalue())

    def given(early, late):
        pair = Pair(sample(inputs=(early,)), sample(inputs=(late,), rollout_id="s"))
        elements = Elements(render(page(pair), blobs))
        images = [attrs for tag, attrs in elements.found if tag == "img"]
        return [image["alt"] for image in images], len({image["src"] for image in images})

    assert given(picture, picture) == (["Input image 0, given"], 1)
    assert given(picture, other) == (["Input image 0, given early", "Input image 0, given late"], 2)


def test_chart_shows_its_code(blobs, picture):
    code = image_part(source="code", params={"code": "plt.plot([1])"}, result=Success(images=(picture,)))
    assert "plt.plot([1])" in shown(blobs, code).text


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (InvalidPart(index=0, raw="<imgen>x</imgen>", reason="no such source"), "no such source"),
        (image_part(result=Failure(cause=Cause.CODE_RAISED, detail="NameError: pltt")), "NameError: pltt"),
        (image_part(result=Failure(cause=Cause.PROVIDER_DOWN)), "Infrastructure failed (provider down)"),
        (image_part(), "No outcome was recorded"),
    ],
)
def test_a_failed_part_is_a_box_with_its_reason(blobs, part, expected):
    elements = shown(blobs, part)
    assert expected in elements.text
    assert any("missing" in (attrs.get("class") or "") for _, attrs in elements.found)


def test_missing_blob_is_a_box(blobs, picture):
    gone = picture.model_copy(update={"sha256": "0" * 64})
    assert "cannot be read" in shown(blobs, image_part(result=Success(images=(gone,)))).text


def test_large_image_is_scaled_down(blobs):
    out = io.BytesIO()
    Image.effect_noise((2000, 1000), 80).save(out, "PNG")
    ref = blobs.put(out.getvalue())
    [piece] = card(sample(image_part(result=Success(images=(ref,)))), blobs).pieces
    assert len(piece.src) < ref.size / 3


def test_every_reason_of_the_model_has_words():
    from evaluation.pages.view import REASONS
    from workers.errors import Fault

    assert set(REASONS) == {cause.value for cause in Cause if cause.fault is Fault.MODEL}


markup = st.sampled_from(
    ["<script>alert(1)</script>", "<image>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))",
     "![x](http://evil/x.png)", "</pre></div>", '"><svg onload=x>', "{{ 7*7 }}", "&lt;b&gt;", "<!--", "```"]
)  # fmt: skip
anything = st.lists(st.one_of(markup, st.text(max_size=20)), max_size=6).map("".join)


@settings(max_examples=60, deadline=None)
@given(anything, anything)
def test_nothing_a_document_says_becomes_markup(blobs, picture, one, two):
    nasty = sample(
        TextPart(text=one),
        image_part(description=two, params={"prompt": one}, result=Success(images=(picture,))),
        InvalidPart(index=1, raw=two, reason=one),
        image_part(2, Failure(cause=Cause.CODE_RAISED, detail=two), one, "code", {"code": two}),
        question=one + "?",
        breakdown={one + "x": two},
    )
    whole = Page(
        one, two, [KeyFigure(one, two, one)], [Pair(nasty, nasty)], None, [Table(one, [two], [[one]])], [two]
    )
    elements = Elements(render(whole, blobs))
    assert not elements.tags() & {"script", "svg", "iframe", "object", "link", "a", "form", "base"}
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on")]
        assert "href" not in attributes
        assert attributes.get("src", "data:").startswith("data:"), tag


def test_policy_forbids_scripts_and_loading_and_allows_our_style(blobs):
    html = render(page(Pair(sample(), sample())), blobs)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html).group(1)
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy


def test_terms_of_the_reward_have_bars_and_the_rest_is_listed_below():
    breakdown = {
        "r_num": 0.5,
        "axes": {"Image": 4},
        "formula": "llmi",
        "missing": None,
        "tools_required": ["code"],
    }
    assert terms(breakdown) == [("image count (r_num)", "0.50", 0.5)]
    assert details(breakdown) == [("axes · Image", "4"), ("formula", "llmi"), ("tools required", "code")]


def test_pairs_take_the_same_prompt_from_both_ends():
    run = [
        sample(step=step, question=q, rollout_id=f"{step}{q}", image_num=1)
        for step in range(1, 11)
        for q in "ab"
    ]
    [pair] = pairs(run)
    assert pair.same_prompt
    assert pair.early.step <= 2
    assert pair.late.step >= 9


def test_pairs_compare_only_prompts_of_one_kind():
    early = [sample(step=1, image_num=1), sample(step=1, image_num=2)]
    late = [sample(step=2, image_num=2), sample(step=2, image_num=-1)]
    assert [pair.early.document.task.image_num for pair in pairs(early + late)] == [2]


def test_one_step_shows_single_documents_of_each_kind():
    run = [
        sample(reward=reward, rollout_id=f"{wants}{reward}", image_num=wants)
        for wants in (1, 2)
        for reward in (0.1, 0.4, 0.9)
    ]
    singles = pairs(run)
    assert [(one.early.document.task.image_num, one.early.reward) for one in singles] == [(1, 0.4), (2, 0.4)]
    assert [one.late for one in singles] == [None, None]
    assert pairs([]) == pairs([sample(reward=None)]) == []


def test_steps_without_a_kind_in_common_show_single_documents():
    both = pairs([sample(step=1, image_num=1), sample(step=2, image_num=2)])
    assert [(one.early.step, one.late) for one in both] == [(1, None), (2, None)]


def test_a_single_document_is_not_labelled_early(blobs):
    html = render(page(Pair(sample(TextPart(text="only this"), inputs=()))), blobs)
    assert html.count("only this") == 1
    found = Elements(html)
    assert "early beside late" not in found.text
    assert "age" not in [attributes.get("class") for _, attributes in found.found]
    assert "step 1" in found.text


@given(st.lists(st.floats(0, 1), min_size=1, max_size=15))
def test_typical_is_the_nearest_to_the_median(rewards):
    import statistics

    run = [sample(reward=reward, rollout_id=str(i)) for i, reward in enumerate(rewards)]
    middle = statistics.median(rewards)
    assert abs(typical(run).reward - middle) == min(abs(reward - middle) for reward in rewards)


def test_masked_samples_are_never_typical():
    assert typical([sample(reward=None), sample(reward=0.1)]).reward == 0.1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_trend_stays_within_what_it_smooths(values):
    trend = smooth(values)
    assert trend[0] == pytest.approx(values[0])
    assert all(min(values) - 1e-9 <= value <= max(values) + 1e-9 for value in trend)


def test_curve_is_a_png_of_its_size(tmp_path):
    path = draw([Point(1, 0.2), Point(2, 0.4, masked=3)], tmp_path / "reward.png", "run")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 1000


def test_evaluations_are_drawn_beside_the_steps(tmp_path):
    points = [Point(1, 0.2), Point(2, 0.4)]
    plain = draw(points, tmp_path / "plain.png").read_bytes()
    evaluated = [EvaluationPoint(0, 0.1, 0.05), EvaluationPoint(2, 0.9, 0.0)]
    assert draw(points, tmp_path / "both.png", evaluated=evaluated).read_bytes() != plain


def test_no_step_no_curve(tmp_path):
    with pytest.raises(ValueError, match="no step"):
        draw([], tmp_path / "reward.png")
