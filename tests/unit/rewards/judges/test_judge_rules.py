"""The rule-based judges: what raises a grade, their name in the source, and the use of the whole scale."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from rewards_documents import F, I, P, X, document

from llmi.demo.prompts.corpus import prompts
from llmi.demo.prompts.specimens import PERFECT, write
from policy.document import Document
from rewards.judges import IMAGE_KIND, TEXT_KIND
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.judges.rules import READ_CHARS, judge_text, quality_grade
from rewards.judges.words import announces, is_copied, is_soup, overlap, subject
from workers import jobs
from workers.errors import Cause
from workers.messages import BlobRef, Failure, Request, Success
from workers.storage.blobs import BlobStore

QUESTION = "Tell me about the grey heron, its nest and its hunting in the reeds."
PROSE = "The grey heron hunts among the reeds at dawn and carries each fish back to its nest in old trees."


def verdict_of(*parts: object, **task: object) -> dict[str, int]:
    doc = document(*parts, **{"question": QUESTION, **task})  # type: ignore[arg-type]
    verdict = judge_text(JudgeTextPayload.of(doc)).verdict
    assert verdict is not None
    return verdict


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 1),
        ("<image>", 1),
        ("Bananas.", 2),
        ("Bananas are cheap in the market this week, and so are pears, plums and apples.", 3),
        ("A heron stands in the reeds, while trains and ships and lorries pass along the busy road.", 4),
        (PROSE, 5),
        (PROSE + " Here is an image of the bird.", 4),
        ("heron nest. " * 2 + "The heron and the reeds. " * 6, 4),
    ],
)
def test_text_climbs_with_length_subject_and_manners(text: str, expected: int) -> None:
    assert verdict_of(P(text))["text"] == expected


@pytest.mark.parametrize(
    "soup",
    [
        "grey heron nest hunting reeds fish trees dawn river bird",
        "heron, nest, reeds, hunting, grey, fish, dawn, water, bird, trees, feather, wings",
        "heron nest " * 30,
        "the heron and the nest and the reeds and the fish and the dawn and the river and its bird",
        "reeds the and trees hunts heron its of carries to the at back grey a among in dawn fish nest its in",
    ],
)
def test_words_without_sentences_are_no_prose(soup: str) -> None:
    assert verdict_of(P(soup))["text"] == 1


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (
            "Schreibe über den Graureiher und sein Nest.",
            "Der Graureiher baut sein Nest hoch in alten Bäumen am Fluss und jagt im Schilf.",
        ),
        (
            "Opisz czaplę siwą, jej gniazdo i polowanie.",
            "Czapla siwa buduje gniazdo wysoko, poluje cierpliwie, karmi młode rybami.",
        ),
        ("介绍苍鹭的巢", "苍鹭在高大的树上筑巢，每天清晨到河边捕鱼。"),
        ("Herons?", "Grey heron, nest, reeds, fish, dawn, river, trees, wings."),
    ],
    ids=["German", "Polish", "Chinese", "a question without function words"],
)
def test_prose_of_another_language_is_no_soup(question: str, text: str) -> None:
    assert verdict_of(P(text), question=question)["text"] > 1


def test_a_copied_question_answers_nothing() -> None:
    assert verdict_of(P(QUESTION))["text"] == 3
    assert verdict_of(P(QUESTION * 3))["text"] <= 3
    assert verdict_of(P(QUESTION + " " + PROSE))["text"] == 5


@pytest.mark.parametrize("seed", range(40))
def test_documents_of_the_demo_are_prose(seed: int) -> None:
    rng = random.Random(seed)
    prompt = next(prompts(seed, "train", pictures=False))
    text = write(rng, prompt.topic, -1, PERFECT)
    assert not is_soup(text, prompt.text)
    assert not is_copied(text, prompt.text)


@pytest.mark.parametrize(
    ("parts", "tools", "expected"),
    [
        ((P(PROSE),), ("search",), 5),
        ((P(PROSE), I("search", "grey heron nest reeds")), ("search",), 5),
        ((P(PROSE), I("diffusion", "grey heron nest reeds")), ("search",), 3),
        ((P(PROSE), I("search", "grey heron")), ("search",), 4),
        ((P(PROSE), I("search", "red sports car")), ("search",), 3),
        ((P(PROSE), I("code", "plt.plot([1, 2])")), ("search",), 1),
        ((P(PROSE), I("search", "grey heron nest reeds"), X()), ("search",), 1),
        ((P(PROSE), I("search", "grey heron nest reeds"), I("search", "red sports car")), ("search",), 2),
        ((P(PROSE), I("diffusion", "grey heron nest reeds")), (), 5),
    ],
)
def test_the_weakest_tag_decides(parts: tuple, tools: tuple[str, ...], expected: int) -> None:
    assert verdict_of(*parts, tools=tools)["image_tags"] == expected


def test_of_code_only_what_it_writes_on_the_chart_counts() -> None:
    code = 'reeds = heron = nest = 1\nplt.title("Bananas sold per week")'
    about = 'plt.bar(["nest", "reeds"], [3, 4])\nplt.title("Grey heron hunting")'
    off = verdict_of(P(PROSE), I("code", code).model_copy(update={"tag": _code(code)}), tools=("code",))
    on = verdict_of(P(PROSE), I("code", about).model_copy(update={"tag": _code(about)}), tools=("code",))
    assert off["image_tags"] < on["image_tags"] == 5
    unused = f"about = 'grey heron nest reeds hunting fish'\n{code}"
    part = I("code").model_copy(update={"tag": _code(unused)})
    assert verdict_of(P(PROSE), part, tools=("code",))["image_tags"] == off["image_tags"]


@pytest.mark.timeout(20)
def test_code_with_many_escapes_and_an_open_quote_is_judged() -> None:
    code = "# don't: " + r"\a" * 40
    part = I("code").model_copy(update={"tag": _code(code)})
    assert verdict_of(P(PROSE), part, tools=("code",))["image_tags"] >= 1


def test_a_tag_that_was_refused_for_its_number_is_not_graded() -> None:
    image = I("search", "grey heron nest reeds")
    assert verdict_of(P(PROSE), image, X(too_many=True), tools=("search",))["image_tags"] == 5
    assert verdict_of(P(PROSE), image, X(), tools=("search",))["image_tags"] == 1


def test_text_beyond_the_judges_limit_changes_nothing() -> None:
    long = PROSE + " " * READ_CHARS
    assert verdict_of(P(long + "Here is an image.")) == verdict_of(P(long)) == verdict_of(P(PROSE))


def _code(code: str) -> object:
    return I("code").tag.model_copy(update={"description": "A chart", "params": {"code": code}})


# The image judge, on real pixels through the job itself.


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def blank() -> Image.Image:
    return Image.new("RGB", (128, 128), (200, 200, 200))


def drawing(side: int = 128) -> Image.Image:
    image = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(image)
    for step in range(4, side, 8):
        pen.line([(step, 0), (side - step, side)], fill=(step % 200, 30, 90), width=2)
    return image


def look(store: BlobStore, doc: Document, **payload: object) -> Success | Failure:
    request = Request.make(IMAGE_KIND, JudgeImagePayload.of(doc, **payload), timeout_s=30)  # type: ignore[arg-type]
    return jobs.run(request, store).result


def verdict(result: Success | Failure) -> dict[str, int]:
    assert isinstance(result, Success), result
    assert result.verdict is not None
    return result.verdict


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (blank(), 1),
        (Image.linear_gradient("L").resize((32, 32)).convert("RGB"), 3),
        (Image.linear_gradient("L").convert("RGB"), 4),
        (drawing(), 5),
        (drawing(32), 4),
    ],
    ids=["blank", "small gradient", "gradient", "drawing", "small drawing"],
)
def test_quality_is_read_from_pixels(image: Image.Image, expected: int) -> None:
    assert quality_grade(image) == expected


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("red sports car", 1),
        ("a grey bicycle, walls, yellow posters and bright neon signs", 2),
        ("grey bicycle against walls", 3),
        ("grey heron near yellow posters", 4),
        ("grey heron in the reeds", 5),
    ],
)
def test_relevance_climbs_with_shared_words(store: BlobStore, says: str, expected: int) -> None:
    image = I("diffusion", says, blob=store.put(png(drawing())))
    seen = verdict(look(store, document(P(PROSE), image, question="Grey heron: nest, reeds, hunting, fish.")))
    assert seen["task_relevance"] == expected


def test_a_found_picture_is_judged_by_its_own_caption(store: BlobStore) -> None:
    blob = store.put(png(drawing()))
    found = [
        I("search", "grey heron nest reeds", blob=blob, caption=c)
        for c in ("A red car", "Grey heron in reeds")
    ]
    wrong, right = (verdict(look(store, document(P(PROSE), image, question=QUESTION))) for image in found)
    assert wrong["task_relevance"] == 1
    assert right["task_relevance"] == 5


def test_a_picture_in_the_wrong_passage_scores_lower(store: BlobStore) -> None:
    image = I("diffusion", "grey heron in reeds", blob=store.put(png(drawing())))
    apart = document(P(PROSE), I("diffusion", "x", blob=image.blob), P("Now for the weather."), image)
    beside = document(P("Now for the weather."), I("diffusion", "x", blob=image.blob), P(PROSE), image)
    assert (
        verdict(look(store, apart))["text_image_relevance"]
        < verdict(look(store, beside))["text_image_relevance"]
    )


def test_failed_images_lower_only_where_the_formula_says_so(store: BlobStore) -> None:
    doc = document(P(PROSE), I(blob=store.put(png(drawing()))), F())
    counted = verdict(look(store, doc))["image_quality"]
    lowered = verdict(look(store, doc, failures_lower=True))["image_quality"]
    assert (counted, lowered) == (5, 3)


def test_the_judge_says_that_it_is_made_of_rules(store: BlobStore) -> None:
    doc = document(P(PROSE), I(blob=store.put(png(drawing()))))
    read = jobs.run(Request.make(TEXT_KIND, JudgeTextPayload.of(doc), timeout_s=30), store).result
    for result in (read, look(store, doc)):
        assert isinstance(result, Success)
        assert result.source == {"judge": "rules"}


def test_a_lost_picture_is_a_failure_of_infrastructure(store: BlobStore) -> None:
    lost = BlobRef(sha256="b" * 64, media_type="image/png", size=9, width=64, height=64)
    result = look(store, document(P(PROSE), I(blob=lost)))
    assert isinstance(result, Failure)
    assert result.cause is Cause.BLOB_MISSING


def test_a_document_without_images_is_no_job_for_the_image_judge(store: BlobStore) -> None:
    with pytest.raises(ValueError, match="no image to judge"):
        JudgeImagePayload.of(document(P(PROSE), F()))


def test_the_whole_scale_is_used() -> None:
    rng = random.Random(0)
    words = (PROSE + " bananas market pears trains ships lorries road weather").split()
    seen: set[int] = set()
    for _ in range(300):
        text = " ".join(rng.choices(words, k=rng.randint(0, 20)))
        tag = I(rng.choice(["search", "code"]), " ".join(rng.choices(words, k=rng.randint(1, 5))))
        seen |= set(verdict_of(P(text), tag, tools=("search",)).values())
    assert seen == {1, 2, 3, 4, 5}


@given(st.text(), st.text(), st.text())
def test_no_words_break_the_text_judge(question: str, prose: str, says: str) -> None:
    grades = verdict_of(P(prose), I("code", says), question=question)
    assert set(grades.values()) <= {1, 2, 3, 4, 5}


@given(st.text(), st.text())
def test_overlap_is_a_symmetric_share(one: str, other: str) -> None:
    a, b = subject(one), subject(other)
    assert overlap(a, b) == overlap(b, a)
    assert 0 <= overlap(a, b) <= 1


def test_chinese_is_compared_sign_by_sign() -> None:
    assert overlap(subject("介绍苍鹭的巢"), subject("苍鹭在树上筑巢")) >= 0.6
    assert overlap(subject("介绍苍鹭的巢"), subject("汽车很便宜")) == 0


@pytest.mark.parametrize(
    "text", ["Below you see a chart of it.", "The picture above", "```python", "the imgen tag"]
)
def test_announcements(text: str) -> None:
    assert announces(text)
    assert not announces("Here the river bends, and the heron waits.")
