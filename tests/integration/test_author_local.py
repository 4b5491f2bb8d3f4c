"""The author in this process: tiny random models, loaded and sampled by transformers for real."""

from __future__ import annotations

import asyncio

import pytest
from fake_services import png

from evaluation.authors import local as author_local
from evaluation.authors.author import Finish, make_author
from evaluation.settings import AuthorSettings
from llmi.demo.policy.build import build_policy
from llmi.demo.policy.recipe import Recipe
from policy.document import Task
from workers.errors import Cause, ConfigError, InfrastructureFault

pytestmark = pytest.mark.heavy
QUICK = Recipe(documents=64, steps=2, batch=8, vocabulary=512)
TASK = Task(question="Write photos of landmarks in Paris. Use images.")


@pytest.fixture(scope="module")
def text_model(tmp_path_factory) -> str:
    return str(build_policy("text", tmp_path_factory.mktemp("cache"), seed=0, recipe=QUICK))


@pytest.fixture(scope="module")
def vl_model(tmp_path_factory) -> str:
    return str(build_policy("vl", tmp_path_factory.mktemp("cache"), seed=0, recipe=QUICK))


def author(model: str, **fields):
    chosen = {"provider": "local", "model": model, "system_prompt": False, "max_tokens": 24, "temperature": 1}
    return make_author(AuthorSettings.model_validate({**chosen, **fields}))


async def written(writer, task=TASK, images=(), seed=1) -> tuple[str, Finish]:
    *pieces, ending = [piece async for piece in writer.write(task, images, seed)]
    return "".join(pieces), ending


async def test_the_seed_decides_the_text(text_model):
    writer = author(text_model)
    first, ending = await written(writer, seed=1)
    assert ending.model == text_model
    assert (await written(writer, seed=1))[0] == first
    assert (await written(writer, seed=2))[0] != first


async def test_at_temperature_0_the_seed_does_not_matter(text_model):
    writer = author(text_model, temperature=0)
    assert await written(writer, seed=1) == await written(writer, seed=2)


async def test_pieces_come_while_the_model_writes_and_closing_stops_it(text_model, monkeypatch):
    tokens = []  # of all texts; each begins with its prompt as one
    put = author_local._Stream.put

    def count(self, value):
        tokens.append(value)
        put(self, value)

    monkeypatch.setattr(author_local._Stream, "put", count)
    writing = author(text_model, max_tokens=4000).write(TASK, (), 1)
    assert await anext(writing)
    await writing.aclose()
    closed_after = len(tokens)
    assert closed_after < 4000
    await written(author(text_model, max_tokens=16))
    assert len(tokens) <= closed_after + 1 + 16, "the closed text was continued"


async def test_texts_are_written_one_after_the_other(text_model):
    writer = author(text_model)
    alone = [await written(writer, seed=seed) for seed in (1, 2)]
    assert await asyncio.gather(*(written(writer, seed=seed) for seed in (1, 2))) == alone


async def test_the_deadline_ends_a_text(text_model):
    with pytest.raises(InfrastructureFault) as caught:
        await written(author(text_model, max_tokens=4000, timeout_s=0.2, temperature=0))
    assert caught.value.cause is Cause.TIMEOUT


async def test_a_vision_model_sees_the_task_s_images(vl_model):
    task = Task(question="Write a story of this picture <image>.")
    writer = author(vl_model, temperature=0)
    assert (await written(writer, task, [png("red", (84, 84))]))[0]


async def test_the_token_budget_truncates(text_model):
    _, ending = await written(author(text_model, temperature=0))
    assert ending.truncated  # an untaught model repeats itself and does not come to an end


async def test_a_vision_model_writes_without_images_too(vl_model):
    assert (await written(author(vl_model)))[0]


async def test_a_model_that_reads_no_images_says_so(text_model):
    with pytest.raises(ConfigError, match="reads no images"):
        await written(author(text_model), images=[png()])


async def test_a_folder_without_a_model_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"author\.model"):
        await written(author(str(tmp_path)))
    author_local._load.cache_clear()
