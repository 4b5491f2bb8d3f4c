"""Configuration files that extend others."""

import pytest

from coordinator.config import files
from coordinator.config.settings import load
from workers.errors import ConfigError


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_sections_are_merged_and_all_else_is_replaced(tmp_path):
    write(tmp_path / "base.yaml", "a: {x: 1, y: {z: 2}}\nb: [1, 2]\nc: 3\n")
    file = write(tmp_path / "own.yaml", "extends: base.yaml\na: {y: {w: 4}}\nb: [5]\nd: 6\n")
    values, source = files.read(file)
    assert values == {"a": {"x": 1, "y": {"z": 2, "w": 4}}, "b": [5], "c": 3, "d": 6}
    assert source == f"{file} (extends {tmp_path / 'base.yaml'})"


def test_a_path_is_relative_to_its_file(tmp_path):
    write(tmp_path / "deep" / "first.yaml", "a: 1\n")
    write(tmp_path / "deep" / "second.yaml", "extends: first.yaml\nb: 2\n")
    file = write(tmp_path / "own.yaml", "extends: deep/second.yaml\nc: 3\n")
    assert files.read(file)[0] == {"a": 1, "b": 2, "c": 3}


def test_a_shipped_configuration_is_extended_by_its_name(tmp_path):
    file = write(tmp_path / "own.yaml", "extends: qwen3_4b_grpo\ntrain: {lr: 2.0e-6}\n")
    own, shipped = load(file), load("qwen3_4b_grpo")
    assert own.train.lr == 2e-6
    assert own.model_copy(update={"train": shipped.train}) == shipped


def test_a_wrong_value_of_an_extended_file_names_both(tmp_path):
    base = write(tmp_path / "base.yaml", "train: {n: 1}\n")
    file = write(tmp_path / "own.yaml", "extends: base.yaml\ntrain: {model: m}\ndata: {train: [a]}\n")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file} (extends {base}): train.n: ")


@pytest.mark.parametrize("text", ["extends: own.yaml\n", "extends: other.yaml\n"])
def test_a_file_that_extends_itself_is_refused(tmp_path, text):
    write(tmp_path / "other.yaml", "extends: own.yaml\n")
    file = write(tmp_path / "own.yaml", text)
    with pytest.raises(
        ConfigError, match=r"extends: leads back to itself \(.*own.yaml -> .*own.yaml\); remove"
    ):
        files.read(file)


def test_a_missing_file_is_named_with_what_is_shipped(tmp_path):
    file = write(tmp_path / "own.yaml", "extends: gone.yaml\n")
    with pytest.raises(ConfigError) as caught:
        files.read(file)
    assert str(caught.value).startswith(
        f"{file}: extends: {tmp_path / 'gone.yaml'} does not exist; name a YAML"
    )
    assert "qwen3_4b_grpo" in str(caught.value)


@pytest.mark.parametrize("value", ["[a, b]", "3", "''"])
def test_an_extends_that_is_no_name_is_refused(tmp_path, value):
    file = write(tmp_path / "own.yaml", f"extends: {value}\n")
    with pytest.raises(ConfigError, match=f"{file}: extends: must be one name or path"):
        files.read(file)


def test_the_error_of_an_extended_file_names_that_file(tmp_path):
    write(tmp_path / "base.yaml", "a: [\n")
    file = write(tmp_path / "own.yaml", "extends: base.yaml\n")
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/base.yaml:\d+: not valid YAML"):
        files.read(file)
