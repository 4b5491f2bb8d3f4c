"""docs/configuration.md is up to date, and every field has a description."""

from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from coordinator.config import reference
from coordinator.config.errors import section
from coordinator.config.settings import RunConfig
from llmi.load.overlap.settings import OverlapSettings


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        if inner := section(field.annotation):
            yield from models(inner)


def test_the_reference_is_up_to_date():
    written = reference.FILE.read_text()
    assert written == reference.document(), "run: .venv/bin/python -m coordinator.config.reference"


@pytest.mark.parametrize("model", sorted({*models(RunConfig), *models(OverlapSettings)}, key=str))
def test_every_field_has_a_description(model):
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_a_table_shows_type_default_and_range():
    text = reference.document()
    for line in (
        "| `lr` | number | `1e-06` | > 0 | Learning rate. As published. |",
        "| `blobs` | section |  |  | The store of images. |",
        "| `train` | list of path | required | at least 1 |",
        "| `memory_mb` | integer, null | null | ≥ 0 |",
        "| `model` | text | judges.text: `Qwen/Qwen3-235B-A22B-Instruct-2507`; judges.image: `Qwen/",
    ):
        assert line in text


def test_every_section_has_a_heading():
    text = reference.document()
    for key in ("Top level", "`queue.breaker`", "`judges.text` and `judges.image`", "`workers.pools[]`"):
        assert f"\n## {key}\n" in text
