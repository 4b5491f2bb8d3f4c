"""The examples of docs/training.md: each is a configuration that `llmi train FILE --dry-run` accepts."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from rich.console import Console

from coordinator.check.dry_run import resolve
from coordinator.config.settings import load
from policy.train.options.passthrough import leaves
from policy.train.options.verl_config import compose

PAGE = Path(__file__).resolve().parents[4] / "docs" / "training.md"
EXAMPLES = re.findall(r"```yaml\n# ([^:.]*)(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def composed(tmp_path):
    """`composed(text)`: verl's configuration after a dry run of an example."""

    def make(text: str):
        file = tmp_path / "example.yaml"
        file.write_text(text, encoding="utf-8")
        console = Console(file=io.StringIO())
        return compose(resolve(load(file), tmp_path, console)["overrides"])

    return make


def test_the_page_has_an_example_of_each_kind():
    titles = " ".join(title for title, _ in EXAMPLES)
    for kind in ("CISPO", "DAPO", "thinking", "Less memory", "LoRA", "Megatron"):
        assert kind in titles


@pytest.mark.parametrize(("title", "rest"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_an_example_passes_the_dry_run_with_all_its_options(title, rest, composed):
    text = f"# {title}{rest}"
    made = composed(text)
    verl = yaml.safe_load(text)["train"].get("verl", {})
    for name, value in leaves(verl):
        if name != "model_engine":
            assert OmegaConf.select(made, name) == value
