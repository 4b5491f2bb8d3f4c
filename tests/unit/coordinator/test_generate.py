"""What `llmi generate` checks before it starts anything."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from fake_services import png
from rich.console import Console

from coordinator import generate
from coordinator.cli.commands import generate as command
from coordinator.config.pools import PoolSettings, WorkerSettings
from coordinator.config.settings import ServiceConfig, check
from coordinator.generate import GenerateOptions, prepare, summary
from coordinator.scale.own_workers import tool_pools
from evaluation.settings import AUTHOR_URL_ENV
from llmi.demo.prompts.topics import ANY, Topic, ask
from llmi.tools import SOURCES
from policy.document import Document, Task
from policy.grammar.tags import read
from workers.errors import ConfigError
from workers.messages import Outcome, Success
from workers.providers.search import library

QUIET = Console(quiet=True)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Services of which nothing is missing."""
    monkeypatch.delenv(AUTHOR_URL_ENV, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / library.CAPTIONS).write_text("")
    model = {"provider": "openai", "base_url": "http://images/v1", "model": "pictures"}
    path = tmp_path / "services.yaml"
    tools = {"search": {"library": "pictures"}, "diffusion": model, "edit": model}
    path.write_text(yaml.safe_dump({"author": {"model": "x/y"}, "tools": tools}))
    return path


def options(path: Path, /, **fields: Any) -> GenerateOptions:
    chosen = {"prompt": "Hi", "images": (), "page": Path("page.html"), "seed": 1, "config": str(path)}
    return GenerateOptions(**{**chosen, **fields})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"prompt": " "}, "--prompt"),
        ({"images": (Path("nowhere.png"),)}, "--image: nowhere.png cannot be read"),
        ({"images": (Path("services.yaml"),)}, "name a PNG, JPEG or WebP file"),
        ({"page": Path("no/such/page.html")}, "--out: may not write in"),
        ({"page": Path("pictures")}, "--out: pictures is a folder"),
        ({"config": "nothing.yaml"}, "nothing.yaml: no such configuration"),
        ({"model": "./nowhere"}, "author.model: ./nowhere has no config.json"),
    ],
)
def test_wrong_input_is_named(config, fields, named):
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        prepare(options(config, **fields), QUIET)


def test_the_author_may_be_a_checkpoint(config, tmp_path):
    folder = tmp_path / "runs" / "mine" / "exports" / "step-4"
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    run = {"name": "mine", "train": {"model": "m", "system_prompt": False}, "data": {"train": ["a.parquet"]}}
    check(run, "here").save_yaml(folder.parents[1])
    author = prepare(options(config, model="mine@4"), QUIET).config.author
    assert (author.model, author.system_prompt) == (str(folder), False)


def test_an_endpoint_needs_the_name_of_its_model(config, monkeypatch):
    monkeypatch.setenv(AUTHOR_URL_ENV, "http://host:8000/v1")
    with pytest.raises(ConfigError, match="--model: is missing"):
        prepare(options(config, config=""), QUIET)


def test_every_problem_of_author_and_tools_is_named_at_once(config):
    config.write_text(yaml.safe_dump({"tools": {"search": {"library": "elsewhere"}}}))
    with pytest.raises(ConfigError) as caught:
        prepare(options(config), QUIET)
    assert {line.partition(":")[0].split()[0] for line in str(caught.value).splitlines()} >= {
        "author.model",
        "tools.search.library",
    }


def test_the_model_named_writes_instead_of_the_configured_one(config):
    assert prepare(options(config), QUIET).config.author.model == "x/y"
    assert prepare(options(config, model="a/b"), QUIET).config.author.model == "a/b"


def test_a_runs_configuration_lets_the_model_write_that_the_run_began_with(config):
    services = yaml.safe_load(config.read_text())
    train = {"model": "x/z", "modality": "text", "system_prompt": False, "steps": 1, "batch_size": 2, "n": 2}
    run = {**services, "author": {}, "train": train, "data": {"train": ["t.parquet"]}}
    config.write_text(yaml.safe_dump(run))
    author = prepare(options(config), QUIET).config.author
    assert (author.model, author.system_prompt) == ("x/z", False)


def test_the_example_is_a_prompt_that_the_tiny_author_was_taught():
    asked = {ask(Random(seed), Topic("search", "landmarks in Kyoto"), ANY) for seed in range(100)}
    example = re.search(r'--prompt "(.+?)"', command.generate.__doc__ or "")
    assert example
    assert example[1] in asked


def test_images_are_cleaned_before_anything_sees_them(config):
    Path("photo.png").write_bytes(png("red", (3000, 60)))
    [image] = prepare(options(config, images=(Path("photo.png"),)), QUIET).images
    assert len(image) > 0
    assert generate.images.rgb(image).size == (2048, 41)


def test_the_tools_queues_are_served_and_no_others():
    pools = (PoolSettings(queues=("search", "judge_text"), concurrency=16, low=2, high=8),)
    served = tool_pools(ServiceConfig(workers=WorkerSettings(pools=pools)))
    assert sorted(queue for pool in served for queue in pool.queues) == sorted(SOURCES)
    assert served[0] == PoolSettings(queues=("search",), concurrency=4)


def test_the_summary_has_a_row_for_every_tag_in_order():
    text = (
        "<imgen>{broken</imgen>"
        "<imgen>{'source': 'search', 'description': 'd', 'params': {'query': 'q'}}</imgen>"
    )
    invalid, search = read(text, inputs=0)
    result = Success(source={"page": "https://e.org"})
    outcome = Outcome(request_id="r", kind="search", result=result, started=2.0, finished=3.5)
    parts = (invalid, search.model_copy(update={"outcome": outcome}))
    document = Document(rollout_id="d", task=Task(question="Hi"), parts=parts)
    first, second = summary(document, Path("page.html"))["images"]
    assert (first["image"], first["outcome"], first["fault"]) == ("Figure 1", "tag_invalid", "model")
    assert second == {
        "image": "Figure 2",
        "tool": "search",
        "description": "d",
        "outcome": "ok",
        "fault": None,
        "detail": "",
        "seconds": 1.5,
        "source": {"page": "https://e.org"},
    }


def test_control_characters_of_a_tools_answer_are_not_printed():
    """Regression: "[/tmp]" in what a chart's code raised was an error of markup, after all was done."""
    row = {
        "image": "Figure 1",
        "tool": "code",
        "outcome": "code_raised",
        "fault": "model",
        "seconds": None,
        "detail": "no such file: [/tmp] [red]x[/red] \x1b[2J",
    }
    console = Console(record=True, width=200)
    command._show(console, {"images": [row], "truncated": False, "seconds": 1.0, "page": "p.html"})
    assert "no such file: [/tmp] [red]x[/red] \ufffd[2J" in console.export_text()
