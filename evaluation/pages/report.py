"""The report of a batch: numbers for programs, and a page with every document as its reader sees it.

Invariants: what is missing is shown as missing with its cause, never as a number; every number says how many
it is over; the page is one file without outside references, and shows nothing but what is in it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.batch.batch import Batch, Manifest
from evaluation.batch.results import (
    LEVEL,
    RESAMPLES,
    SEED,
    TOP,
    ItemResult,
    Mean,
    failures,
    mean,
    overall,
    terms,
)
from evaluation.benchmark import Item
from evaluation.pages import html
from evaluation.pages.page import KeyFigure
from evaluation.pages.pictures import data_uri
from evaluation.pages.samples import Sample
from evaluation.pages.view import card, reason
from evaluation.pages.view import terms as shown_terms
from evaluation.payloads import judge_name
from evaluation.rubric.verdict import MAX_SCORE
from policy.data.dataset import PLACEHOLDER
from policy.document import Document
from workers.messages import Failure
from workers.storage.blobs import BlobStore

SHOWN = 100  # documents on one page; all items are in its table and in report.json
METHOD = (
    f"{LEVEL:.0%} interval: percentile bootstrap over items, {RESAMPLES:,} resamples, seed {SEED}. "
    "What is missing is in no mean; what was refused is in it as 0."
)


def write(batch: Batch) -> tuple[str, str, dict[str, Any]]:
    """Write `report.html` and `report.json` into the batch; returns where they lie, and the numbers."""
    manifest, results = batch.manifest(), batch.results()
    numbers = summary(manifest, results)
    text = render(manifest, results, numbers, batch)
    page = batch.write("report.html", text.encode())
    return page, batch.write("report.json", _json(numbers)), numbers


def summary(manifest: Manifest, results: Mapping[str, ItemResult]) -> dict[str, Any]:
    """The numbers of a batch, as JSON. `score` has value, judged, of, low and high."""
    points = {item.item_id: results[item.item_id].points if item.item_id in results else []
              for item in manifest.items}  # fmt: skip
    scores = [result.score for result in results.values() if result.score is not None]
    return {
        "name": manifest.name,
        "benchmark": manifest.benchmark,
        "kind": manifest.kind,
        "author": manifest.author.model,
        "judge": judge_name(manifest.rubric) if manifest.kind == "rubric" else manifest.reward.formula,
        "judges_that_spoke": sorted(set().union(*(_spoke(result) for result in results.values()))),
        "scale": TOP if manifest.kind == "rubric" else 1.0,
        "score": vars(overall(list(points.values()), manifest.criteria)),
        "terms": {name: vars(value) for name, value in terms(scores).items()},
        "documents": {
            "written": sum(bool(result.document_id) for result in results.values()),
            "of": len(manifest.items),
        },
        "failures": failures(results.values()),
        "refused": {
            "documents": sum(result.unwritten for result in results.values()),
            "points": sum(result.refused for result in results.values()),
        },
        "method": METHOD,
        "items": [
            _item(item, results.get(item.item_id), mean(points[item.item_id], len(item.criteria) or 1))
            for item in manifest.items
        ],
    }


def _spoke(result: ItemResult) -> set[str]:
    """The judges of one item, as they name themselves."""
    judges = result.score.breakdown.get("judges") if result.score is not None else None
    of_reward = {str(name) for name in judges.values() if name} if isinstance(judges, dict) else set()
    return of_reward | {one.judge for one in result.judged.values()}


def _item(item: Item, result: ItemResult | None, score: Mean) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "prompt": item.task.question,
        "score": score.value,
        "judged": score.judged,
        "of": score.of,
        "criteria": [
            {
                "name": name,
                "text": text,
                **(
                    result.verdicts[name].model_dump(mode="json")
                    if result and name in result.verdicts
                    else {"status": "open"}
                ),
            }
            for name, text in item.criteria.items()
        ],
        "reward": result.score.model_dump(mode="json") if result and result.score else None,
        "failure": result.failure.model_dump(mode="json") if result and result.failure else None,
    }


def render(
    manifest: Manifest, results: Mapping[str, ItemResult], numbers: dict[str, Any], batch: Batch
) -> str:
    """The page."""
    blobs = BlobStore(manifest.blobs.url)
    items = [
        _shown(item, results.get(item.item_id), row, batch, blobs)
        for item, row in zip(manifest.items[:SHOWN], numbers["items"], strict=False)
    ]
    return html.render(
        "evaluation.html.j2",
        ("page.css", "evaluation.css"),
        title=manifest.name,
        lead=_lead(manifest),
        figures=_figures(manifest, numbers),
        rows=numbers["items"],
        items=items,
        failures=numbers["failures"],
        refused=numbers["refused"],
        judges=[_model(name) for name in numbers["judges_that_spoke"]],
        beyond=max(0, len(manifest.items) - SHOWN),
        shown_ids={item["id"] for item in items},
        method=METHOD,
        top=MAX_SCORE,
        placeholder=PLACEHOLDER,
        made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
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
    """A model's name without the folder that it lies in on some machine; a hub id stays whole."""
    return Path(name).name if name.startswith(("/", ".", "~")) else name


def _figures(manifest: Manifest, numbers: dict[str, Any]) -> list[KeyFigure]:
    score, rubric = numbers["score"], manifest.kind == "rubric"
    what, documents = "criteria" if rubric else "documents", numbers["documents"]
    figures = [
        KeyFigure(
            "score" if rubric else "mean reward",
            number(score["value"]),
            f"of {numbers['scale']:g}, over what was judged",
        ),
        KeyFigure("judged", f"{score['judged']} of {score['of']}", what),
        KeyFigure("documents", f"{documents['written']} of {documents['of']}", "written"),
    ]
    if score["low"] is not None:
        interval = f"{number(score['low'])} – {number(score['high'])}"
        figures.insert(1, KeyFigure(f"{LEVEL:.0%} interval", interval, "over items"))
    figures += [
        KeyFigure(name, number(term["value"]), f"{term['judged']} of {score['of']} documents")
        for name, term in numbers["terms"].items()
    ]
    return figures


def number(value: float | None) -> str:
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
        "inputs": [uri for uri in (data_uri(blobs, ref) for ref in item.task.inputs) if uri],
        "score": number(row["score"]),
        "judged": row["judged"],
        "of": row["of"],
        "pieces": _pieces(document, blobs),
        "truncated": document is not None and document.truncated,
        "absent": _absent(result, document),
        "refused": result is not None and result.unwritten,
        "criteria": [_criterion(one) for one in row["criteria"]],
        "terms": shown_terms(reward.breakdown) if reward and reward.reward is not None else [],
        "masked": [_why(failure) for failure in (reward.masked_by if reward else ())],
    }


def _pieces(document: Document | None, blobs: BlobStore) -> list[Any]:
    return card(Sample(document=document, step=0, reward=None), blobs).pieces if document else []


def _absent(result: ItemResult | None, document: Document | None) -> str:
    """Why there is no document."""
    if result is not None and result.failure is not None:
        return _why(result.failure)
    return "" if document is not None else "Not written yet."


def _criterion(row: dict[str, Any]) -> dict[str, Any]:
    failure = Failure.model_validate(row["failure"]) if "failure" in row else None
    said = _why(failure) if failure else ""
    why = {"judged": row.get("reason", ""), "missing": said, "refused": f"counts 0: {said}"}
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
