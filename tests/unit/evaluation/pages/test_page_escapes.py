"""Strings from a model or the web are text on every page, and no page loads or runs anything."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_services import png

from evaluation.batch.batch import Batch, Manifest
from evaluation.batch.results import ItemResult, Missing
from evaluation.benchmark import Item, fingerprint
from evaluation.pages import document_page, evaluation_page, run_page
from evaluation.pages.run_page import KeyFigure, Page, Table
from evaluation.pages.samples import Pair, Sample
from evaluation.rubric.verdict import Judgement
from evaluation.settings import AuthorSettings, RubricSettings
from policy.document import Document, ImagePart, InvalidPart, Tag, Task, TextPart
from rewards.settings import JudgeSettings, RewardSettings
from workers.errors import Cause
from workers.messages import Failure, Outcome, Success
from workers.settings import BlobSettings, QueueSettings
from workers.storage.blobs import BlobStore

ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "article", "div",
    "p", "span", "b", "h1", "h2", "h3", "ul", "li", "figure", "figcaption", "img", "details", "summary",
    "pre", "table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "meter", "a",
}  # fmt: skip
WORDS = (
    "question", "prose", "description", "prompt", "query", "code", "caption", "page", "file", "provider",
    "raw", "reason", "detail", "judge", "model", "criterion", "why", "term", "run", "note", "tool", "missing",
)  # fmt: skip


def evil(word: str) -> str:
    """Text that runs a script if an element, an attribute, a title or a style contains it unescaped."""
    return f"""</title></style></pre>"'><script>alert("{word}")</script><img src=x onerror=alert(1)>"""


class Seen(HTMLParser):
    """The elements of a page, what stands in its style, and its words, attributes' too."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.style, self.words, self._in = "", "", ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.words += " ".join(value or "" for _, value in attrs)
        self._in = tag

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "style":
            self.style += data
        else:
            self.words += data


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


def image(index: int, tool: str, result: Success | Failure, **params: str | int) -> ImagePart:
    tag = Tag.model_validate({"source": tool, "description": evil("description"), "params": params})
    return ImagePart(index=index, tag=tag, raw="", outcome=Outcome(request_id="r", kind=tool, result=result))


def document(blobs: BlobStore) -> Document:
    picture = (blobs.put(png()),)
    found = {name: evil(name) for name in ("provider", "page", "file", "model")} | {"title": evil("caption")}
    failed = Failure(cause=Cause.CODE_RAISED, detail=evil("detail"))
    return Document(
        rollout_id="d",
        task=Task(question=evil("question"), tools=(evil("tool"),), inputs=picture),
        parts=(
            TextPart(
                text=f"{evil('prose')}\n\n[a](javascript:alert(1)) ![b](http://e.org/b.png) <http://e.org>"
            ),
            image(0, "search", Success(images=picture, source=found), query=evil("query")),
            image(1, "diffusion", Success(images=picture, source=found), prompt=evil("prompt")),
            image(2, "code", failed, code=evil("code")),
            image(3, "edit", failed, img_index=1, prompt=evil("prompt")),
            InvalidPart(index=4, raw=evil("raw"), reason=evil("reason")),
        ),
        extra={"author": evil("model"), "seed": 1},
    )


def of_a_run(blobs: BlobStore, folder: Path) -> str:
    breakdown = {evil("term"): 0.5, "judges": {"judge_text": evil("judge")}, "why": evil("why")}
    masked = (Failure(cause=Cause.PROVIDER_DOWN, detail=evil("detail"), provider=evil("provider")),)
    sample = Sample(document(blobs), 1, 0.5, breakdown, masked_by=masked)
    return run_page.render(
        Page(
            title=evil("run"),
            lead=evil("model"),
            figures=[KeyFigure(evil("run"), evil("run"), evil("note"))],
            pairs=[Pair(sample, sample), Pair(sample)],
            curve=png(),
            tables=[Table(evil("run"), [evil("run")], [[evil("run")]])],
            notes=[evil("note")],
            masked=[
                Sample(document(blobs), 1, None, masked_by=masked, by=(evil("by"),), more=evil("more")),
            ],
        ),
        blobs,
    )


def of_a_document(blobs: BlobStore, folder: Path) -> str:
    return document_page.page(document(blobs), blobs)


def of_an_evaluation(blobs: BlobStore, folder: Path) -> str:
    criteria = {name: evil("criterion") for name in ("r1", "r2", "r3")}
    items = (
        Item(item_id="0001", task=document(blobs).task, criteria=criteria),
        Item(item_id="0002", task=Task(question=evil("question")), criteria=criteria),
    )
    batch = Batch(str(folder / "evaluation"))
    batch.create(
        Manifest(
            name=evil("run"),
            created=0.0,
            kind="rubric",
            benchmark=evil("file"),
            sha256=fingerprint(items),
            items=items,
            author=AuthorSettings(model=evil("model")),
            rubric=RubricSettings(provider="openai", model=evil("judge")),
            reward=RewardSettings(),
            judges=JudgeSettings(),
            blobs=BlobSettings(url=blobs.url),
            queue=QueueSettings(),
        )
    )
    batch.save_document("0001", document(blobs))
    gone = Failure(cause=Cause.PROVIDER_DOWN, detail=evil("missing"))
    batch.save_result(
        ItemResult(
            item_id="0001",
            round=0,
            document_id="d",
            verdicts={
                "r1": Judgement(score=1, reason=evil("why"), judge=evil("judge")),
                "r2": Missing(failure=gone, attempts=1),
            },
        )
    )
    batch.save_result(ItemResult(item_id="0002", round=0, failure=gone))
    evaluation_page.write(batch)
    return (folder / "evaluation" / "report.html").read_text()


Made = Callable[[BlobStore, Path], str]
PAGES: dict[str, tuple[Made, set[str]]] = {
    "a run": (of_a_run, {*WORDS} - {"caption", "page", "file", "provider", "criterion", "missing"}),
    "a document": (
        of_a_document,
        {*WORDS} - {"judge", "criterion", "why", "term", "run", "note", "tool", "missing"},
    ),
    "an evaluation": (
        of_an_evaluation,
        {*WORDS} - {"caption", "page", "provider", "term", "note", "tool"},
    ),
}


@pytest.fixture(params=PAGES)
def made(request: pytest.FixtureRequest, blobs: BlobStore, tmp_path: Path) -> tuple[Seen, set[str]]:
    """A page whose every string is hostile, and the words that it shows."""
    make, words = PAGES[request.param]
    return Seen(make(blobs, tmp_path)), words


def test_every_string_is_shown_as_it_was_written(made: tuple[Seen, set[str]]) -> None:
    seen, words = made
    assert {tag for tag, _ in seen.elements} <= ALLOWED
    assert not {word for word in words if f'<script>alert("{word}")</script>' not in seen.words}
    for tag, attributes in seen.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcdoc")]
        assert (attributes.get("src") or "data:image/").startswith("data:image/"), tag
        assert (attributes.get("href") or "#").startswith("#"), tag


def test_the_policy_comes_first_and_allows_images_inside_and_its_own_style_only(
    made: tuple[Seen, set[str]],
) -> None:
    seen, _ = made
    head = [(tag, attributes) for tag, attributes in seen.elements if tag in ("meta", "title", "style")]
    policy = head[1][1]
    assert policy["http-equiv"] == "Content-Security-Policy", "before anything it could be about"
    digest = base64.b64encode(hashlib.sha256(seen.style.encode()).digest()).decode()
    assert policy["content"] == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert not [attributes for tag, attributes in seen.elements if attributes.get("http-equiv") == "refresh"]
