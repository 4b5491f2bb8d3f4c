"""The page of an evaluation, with every document beside its verdicts.

Invariants: those of `evaluation.pages.template`; what is missing is shown with its cause, never as a number.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.batch.batch import Batch, Manifest
from evaluation.batch.results import ItemResult
from evaluation.batch.summary import LEVEL, METHOD, summary
from evaluation.benchmark import Item
from evaluation.pages import template
from evaluation.pages.pictures import data_uris
from evaluation.pages.run_page import KeyFigure
from evaluation.pages.view import pieces, reason
from evaluation.pages.view import terms as shown_terms
from evaluation.payloads import judge_name
from evaluation.rubric.verdict import MAX_SCORE
from policy.data.dataset import PLACEHOLDER
from policy.document import Document
from workers.messages import Failure
from workers.storage.blobs import BlobStore

SHOWN = 100  # documents on one page; its table and report.json have all items


def write(batch: Batch) -> tuple[str, str, dict[str, Any]]:
    """Write `report.html` and `report.json` into the batch; returns their paths and the numbers."""
    manifest, results = batch.manifest(), batch.results()
    numbers = summary(manifest, results)
    text = render(manifest, results, numbers, batch)
    page = batch.write("report.html", text.encode())
    return page, batch.write("report.json", _json(numbers)), numbers


def render(
    manifest: Manifest, results: Mapping[str, ItemResult], numbers: dict[str, Any], batch: Batch
) -> str:
    """The page."""
    blobs = BlobStore(manifest.blobs.url)
    items = [
        _shown(item, results.get(item.item_id), row, batch, blobs)
        for item, row in zip(manifest.items[:SHOWN], numbers["items"], strict=False)
    ]
    return template.render(
        "evaluation.html.j2",
        title=manifest.name,
        lead=_lead(manifest),
        key_figures=_figures(manifest, numbers),
        rows=numbers["items"],
        items=items,
        failures=numbers["failures"],
        refused=numbers["refused"],
        judges=[_model(name) for name in numbers["judges_that_spoke"]],
        more=max(0, len(manifest.items) - SHOWN),
        shown_ids={item["id"] for item in items},
        method=METHOD,
        top=MAX_SCORE,
        placeholder=PLACEHOLDER,
        created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )


def _lead(manifest: Manifest) -> str:
    judged = (
        f"each criterion judged 0, 1 or 2 by {_model(judge_name(manifest.rubric))}"
        if manifest.kind == "rubric"
        else f"each document given the training reward ({_formula(manifest)})"
    )
    return (
        f"{len(manifest.items)} items of {manifest.benchmark}, written by {_model(manifest.author.model)}, "
        f"{judged}."
    )


def _formula(manifest: Manifest) -> str:
    weights = ", with the weights of a model that reads images" if manifest.reward.vl else ""
    return f"{manifest.reward.formula}{weights}"


def _model(name: str) -> str:
    """A model's name without its folder; a hub id stays whole."""
    return Path(name).name if name.startswith(("/", ".", "~")) else name


def _figures(manifest: Manifest, numbers: dict[str, Any]) -> list[KeyFigure]:
    score, rubric = numbers["score"], manifest.kind == "rubric"
    what, documents = "criteria" if rubric else "documents", numbers["documents"]
    figures = [
        KeyFigure(
            "score" if rubric else "mean reward",
            two_decimals(score["value"]),
            f"of {numbers['scale']:g}, over what was judged",
        ),
        KeyFigure("judged", f"{score['judged']} of {score['of']}", what),
        KeyFigure("documents", f"{documents['written']} of {documents['of']}", "written"),
    ]
    if score["low"] is not None:
        interval = f"{two_decimals(score['low'])} – {two_decimals(score['high'])}"
        figures.insert(1, KeyFigure(f"{LEVEL:.0%} interval", interval, "over items"))
    figures += [
        KeyFigure(name, two_decimals(term["value"]), f"{term['judged']} of {score['of']} documents")
        for name, term in numbers["terms"].items()
    ]
    return figures


def two_decimals(value: float | None) -> str:
    """Two decimals; a dash where nothing was judged."""
    return "–" if value is None else f"{value:.2f}"


def _shown(
    item: Item, result: ItemResult | None, row: dict[str, Any], batch: Batch, blobs: BlobStore
) -> dict[str, Any]:
    document = batch.document(item.item_id)
    reward = result.score if result else None
    return {
        "id": item.item_id,
        "question": item.task.question.replace(PLACEHOLDER, "[picture]"),
        "inputs": data_uris(blobs, item.task.inputs),
        "score": two_decimals(row["score"]),
        "judged": row["judged"],
        "of": row["of"],
        "pieces": pieces(document, blobs) if document else [],
        "truncated": document is not None and document.truncated,
        "absent": _absent(result, document),
        "refused": result is not None and result.unwritten,
        "criteria": [_criterion(one) for one in row["criteria"]],
        "terms": shown_terms(reward.breakdown) if reward and reward.reward is not None else [],
        "masked": [_why(failure) for failure in (reward.masked_by if reward else ())],
    }


def _absent(result: ItemResult | None, document: Document | None) -> str:
    """Why there is no document."""
    if result is not None and result.failure is not None:
        return _why(result.failure)
    return "" if document is not None else "Not written yet."


def _criterion(row: dict[str, Any]) -> dict[str, Any]:
    failure = Failure.model_validate(row["failure"]) if "failure" in row else None
    cause = _why(failure) if failure else ""
    why = {"judged": row.get("reason", ""), "missing": cause, "refused": f"counts 0: {cause}"}
    return {
        "name": row["name"],
        "text": row["text"],
        "score": 0 if row["status"] == "refused" else row.get("score"),
        "status": row["status"],
        "why": why.get(row["status"], "not judged yet"),
    }


def _why(failure: Failure) -> str:
    detail = f": {failure.detail}" if failure.detail else ""
    return f"{reason(failure)}{detail}"


def _json(numbers: dict[str, Any]) -> bytes:
    return (json.dumps(numbers, ensure_ascii=False, indent=1) + "\n").encode()
