"""Generated prompts and specimens: in the schema, repeatable, with the requested rate of errors."""

from __future__ import annotations

import io
from itertools import islice
from random import Random

import matplotlib
import numpy as np
import pytest
from PIL import Image

from llmi.demo.prompts.corpus import prompts, write_dataset
from llmi.demo.prompts.specimens import PERFECT, Flaws, chart, write
from llmi.demo.prompts.topics import ANY, FREE, NONE, required_tools
from policy.data.dataset import load_rows
from policy.document import ImagePart, InvalidPart
from policy.grammar.tags import read

COUNT = 400


def examples(*, pictures: bool, flaws: Flaws = PERFECT):
    random = Random(5)
    for prompt in islice(prompts(3, "train", pictures=pictures), COUNT):
        text = write(random, prompt.topic, prompt.image_num, flaws)
        yield prompt, read(text, inputs=int(pictures))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"), seed=7, train=200, test=40)


@pytest.mark.parametrize(
    ("name", "rows", "images", "source"),
    [
        ("train", 200, 0, "interleaved"),
        ("test", 40, 0, "interleaved"),
        ("train_mm", 200, 1, "interleaved_mm"),
        ("test_mm", 40, 1, "interleaved_mm"),
    ],
)
def test_the_loader_reads_every_file_that_is_written(files, name, rows, images, source):
    loaded = load_rows(files[name])
    assert len(loaded) == rows
    assert {len(row.images) for row in loaded} == {images}
    assert {row.data_source for row in loaded} == {source}
    assert {row.split for row in loaded} == {name.removesuffix("_mm")}
    assert all("<image>" not in row.question for row in loaded)


def test_the_same_seed_writes_the_same_rows_and_another_seed_others(files, tmp_path):
    again = write_dataset(tmp_path / "again", seed=7, train=20, test=5)
    other = write_dataset(tmp_path / "other", seed=8, train=20, test=5)
    first = [row.question for row in load_rows(files["train"])[:20]]
    assert [row.question for row in load_rows(again["train"])] == first
    assert [row.question for row in load_rows(other["train"])] != first


@pytest.mark.parametrize("pictures", [False, True])
def test_no_subject_of_the_test_split_is_trained_on(pictures):
    train, test = (
        {prompt.topic for prompt in islice(prompts(1, split, pictures=pictures), 1000)}
        for split in ("train", "test")
    )
    assert test
    assert not train & test


@pytest.mark.parametrize("pictures", [False, True])
def test_every_way_of_asking_for_images_occurs(pictures):
    asked = {prompt.image_num for prompt in islice(prompts(1, "train", pictures=pictures), COUNT)}
    assert asked == {NONE, FREE, ANY, 1, 2, 3}


def test_every_tool_is_required_somewhere_and_none_where_no_image_need_be():
    drawn = list(islice(prompts(1, "train", pictures=False), COUNT))
    tools = [required_tools(prompt.topic, prompt.image_num) for prompt in drawn]
    assert {tool for some in tools for tool in some} == {"search", "diffusion", "code", "edit"}
    assert all(
        bool(some) == (prompt.image_num not in (NONE, FREE))
        for prompt, some in zip(drawn, tools, strict=True)
    )


def test_input_images_are_small_decodable_pictures():
    prompt = next(prompts(1, "train", pictures=True))
    with Image.open(io.BytesIO(prompt.image)) as image:
        assert (image.format, image.size) == ("PNG", (84, 84))
        assert len(image.getcolors(84 * 84)) > 2


@pytest.mark.parametrize("pictures", [False, True])
def test_a_perfect_document_follows_its_prompt(pictures):
    for prompt, parts in examples(pictures=pictures):
        images = [part for part in parts if isinstance(part, ImagePart)]
        count, asked = len(images), prompt.image_num
        assert not any(isinstance(part, InvalidPart) for part in parts)
        assert asked == FREE or count == {NONE: 0}.get(asked, asked) or (asked == ANY and count > 0)
        assert [part.tag.source for part in images] == prompt.topic.tools(count)
        assert all(prompt.topic.subject in part.tag.description for part in images)
        assert set(required_tools(prompt.topic, asked)) <= {part.tag.source for part in images}


def test_flawed_documents_are_grammatical_but_often_wrong():
    seen = list(examples(pictures=False, flaws=Flaws()))
    images = [part for _, parts in seen for part in parts if isinstance(part, ImagePart)]
    invalid = [part for _, parts in seen for part in parts if isinstance(part, InvalidPart)]
    exact = [(prompt, parts) for prompt, parts in seen if prompt.image_num in (1, 2, 3)]
    right = [prompt.image_num == sum(part.type != "text" for part in parts) for prompt, parts in exact]
    assert len(images) / (len(images) + len(invalid)) > 0.95
    assert 0.35 < sum(right) / len(right) < 0.65


def test_every_chart_is_code_that_draws():
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    random = Random(0)
    for code in sorted(
        {chart(random, "a report").split("\n")[0][:8]: chart(random, "t") for _ in range(60)}.values()
    ):
        plt.close("all")
        exec(compile(code, "chart", "exec"), {"plt": plt, "np": np, "sns": sns})
        axes = plt.gcf().axes
        assert axes
        assert axes[0].has_data()
    plt.close("all")
