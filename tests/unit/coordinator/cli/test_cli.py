"""The command: fast to start, clear about bad input, and with --json nothing but JSON on stdout."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from coordinator.host.signals import Stopped
from workers.errors import Cause, ConfigError, InfrastructureFault

LLMI = [sys.executable, "-c", "from coordinator.cli.main import main; main()"]
NAMES = ("RAY_ADDRESS", "SERP_API_KEY", "LLM_JUDGE_BASE_URL", "MLLM_JUDGE_BASE_URL", "LLMI_REDIS_URL",
         "QWEN_IMAGE_SERVER_URL", "QWEN_EDIT_SERVER_URL", "LLMI_CACHE", "LLMI_CONFIG")  # fmt: skip


@pytest.fixture
def llmi(tmp_path, monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        return subprocess.run([*LLMI, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return run


def test_version(llmi):
    assert llmi("--version").stdout.startswith("llmi 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--help"], "demo"),
        (["demo", "--help"], "[default: demo and the time]"),
        (["train", "--help"], "[default: the config's, or file and time]"),
    ],
)
def test_help_works(llmi, arguments, said, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = llmi(*arguments)
    assert result.returncode == 0
    assert said in result.stdout


def test_starting_imports_nothing_heavy():
    heavy = ("torch", "ray", "verl", "vllm", "diffusers", "transformers", "matplotlib", "celery", "pyarrow",
             "rich.markdown")  # fmt: skip
    code = f"import sys, coordinator.cli.main; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name", ["qwen3_4b_grpo", "qwen3_30b_a3b_gspo", "qwen2_5_vl_7b_grpo", "demo", "demo_vl"]
)
def test_dry_run_needs_no_model_no_data_and_no_service(llmi, name, tmp_path):
    result = llmi("train", name, "--dry-run", "--json")
    [line] = result.stdout.splitlines()
    answer = json.loads(line)
    assert result.returncode == 1, "no model, no data and no keys are here"
    assert answer["problems"]
    assert answer["config"]["train"]["model"]
    assert any(option.startswith("algorithm.adv_estimator=") for option in answer["overrides"])
    assert list(tmp_path.iterdir()) == []


def test_dry_run_says_what_a_real_run_would_miss(llmi):
    problems = json.loads(llmi("train", "qwen3_4b_grpo", "--dry-run", "--json").stdout)["problems"]
    assert any("SERP_API_KEY" in problem for problem in problems)
    assert any("train.parquet" in problem for problem in problems)


def test_dry_run_shows_no_key(llmi, monkeypatch):
    monkeypatch.setenv("SERP_API_KEY", "hunter2")
    monkeypatch.setenv("LLMI_REDIS_URL", "redis://:hunter2@h:1/0")
    result = llmi("train", "qwen3_4b_grpo", "--dry-run")
    assert result.returncode == 1
    assert "hunter2" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"train": {"model": "m", "learning_rat": 1}}, "train.learning_rat: unknown key"),
        ({"data": {}}, "data.train: missing"),
        ({"train": {"model": "m", "seed": -1}}, "train.seed: Input should be greater than or equal to 0"),
        ({"train": {"model": "m", "seed": 2**32}}, "train.seed: Input should be less than or equal to"),
    ],
)
def test_wrong_configuration_exits_with_two_and_names_the_field(llmi, tmp_path, change, expected):
    good = {"train": {"model": "m"}, "data": {"train": ["x.parquet"]}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(good | change))
    result = llmi("train", "c.yaml", "--json")
    assert result.returncode == 2
    error = json.loads(result.stdout)["error"]
    assert error["exit_code"] == 2
    assert error["kind"] == "configuration"
    assert f"c.yaml: {expected}" in error["message"]
    assert f"c.yaml: {expected}" in result.stderr


def test_unknown_configuration_exits_with_two(llmi):
    result = llmi("train", "nope.yaml")
    assert result.returncode == 2
    assert "qwen3_4b_grpo" in result.stderr


def test_missing_keys_stop_a_run_before_anything_is_started(llmi, tmp_path):
    result = llmi("train", "qwen3_4b_grpo", "--name", "x")
    assert result.returncode == 2
    assert "SERP_API_KEY" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["demo"], ["generate", "--prompt", "Hi"]])
def test_a_seed_that_python_does_not_take_is_refused_at_once(llmi, tmp_path, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = llmi(*command, "--seed", str(2**32))
    assert result.returncode == 2
    assert "'--seed': Input should be less than or equal to 4294967295" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_existing_run_folder_stops_the_demo_before_it_builds_anything(llmi, tmp_path):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    result = llmi("demo", "--name", "mine")
    assert result.returncode == 2
    assert "--name" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_unreachable_redis_stops_the_demo_before_it_builds_anything(llmi, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMI_REDIS_URL", "redis://127.0.0.1:1/0")
    result = llmi("demo", "--name", "mine")
    assert result.returncode == 2
    assert "no Redis answers" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_dry_run_follows_min_valid_and_a_file_of_any_name(llmi, tmp_path):
    document = {"train": {"model": "m", "min_valid": 5}, "data": {"train": ["x.parquet"]}}
    (tmp_path / "my config.yaml").write_text(yaml.safe_dump(document))
    result = llmi("train", "my config.yaml", "--dry-run", "--json")
    assert result.returncode == 1, result.stderr
    answer = json.loads(result.stdout)
    assert "+trainer.v1.sampler.sampler_kwargs.min_valid=5" in answer["overrides"]
    assert answer["name"].startswith("my-config-")


def test_error_of_the_system_is_a_message_and_exits_with_one(monkeypatch, capsys):
    from coordinator.cli import main as cli

    def app(**options):
        raise PermissionError(13, "Permission denied", "some/folder")

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert "some/folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../evil", "a/b", " "])
def test_names_that_are_no_folder_names_are_refused(llmi, name, tmp_path):
    result = llmi("demo", "--name", name)
    assert result.returncode == 2
    assert not Path(tmp_path / "runs").exists()


def test_json_is_the_only_thing_on_stdout_whatever_writes_there(capfd):
    import os

    from coordinator.cli.output import output

    with output(True) as (_, result):
        os.write(1, b"noise of a library\n")
        result["x"] = 1
    out, err = capfd.readouterr()
    assert json.loads(out) == {"x": 1}
    assert "noise" in err


def test_option_that_verl_does_not_know_is_found_by_the_dry_run():
    from policy.train.options.verl_config import compose

    with pytest.raises(ConfigError, match="no_such_option"):
        compose(["trainer.no_such_option=1"])


@pytest.mark.parametrize("as_json", [True, False])
def test_progress_goes_to_stderr(monkeypatch, tmp_path, as_json):
    from coordinator.cli.commands import train
    from coordinator.run import launch

    def begin(config, runs, console, *rest):
        raise ConfigError("stderr" if console.stderr else "stdout")

    monkeypatch.setattr(launch, "launch", begin)
    with pytest.raises(ConfigError, match="stderr"):
        train.train("demo", dry_run=False, name="x", runs=tmp_path, as_json=as_json)


def test_a_dry_run_of_the_judges_shows_the_commands_and_what_this_machine_lacks(llmi, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    result = llmi("serve", "judges", "--dry-run", "--tensor-parallel-size", "2", "--json")
    shown = json.loads(result.stdout)
    assert result.returncode == 1
    assert shown["lacking"] == "this machine has 0 GPUs, and these judges need 4"
    assert [server["env"]["CUDA_VISIBLE_DEVICES"] for server in shown["servers"]] == ["0,1", "2,3"]


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("train", "demo", "--resume"), "no run is named; give its --name"),
        (("demo", "--resume", "--name", "none"), "there is no run to resume"),
    ],
)
def test_an_unknown_run_is_not_resumed(llmi, arguments, shown):
    result = llmi(*arguments)
    assert result.returncode == 2
    assert shown in result.stderr


def test_a_dry_run_in_a_pipe_has_no_padding_and_no_rules(llmi, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = llmi("train", "demo", "--dry-run").stdout.splitlines()
    assert lines[0] == "# configuration"
    assert not [line for line in lines if line != line.rstrip() or "──" in line]


@pytest.mark.parametrize("page", ["<html>", "", None])
def test_a_report_is_announced_only_when_it_is_there(monkeypatch, tmp_path, capsys, page):
    import typer

    from coordinator.cli.commands import train
    from coordinator.run import launch

    class Ended:
        def model_dump(self, mode):
            counts = ("steps", "requests_posted", "lost", "masked")
            none = {"reward_first": None, "reward_last": None, "masked_by_cause": {}, "dropped_with_group": 0}
            return {**none, **dict.fromkeys(counts, 1)}

    def run(config, folder, *rest):
        (folder / config.name).mkdir()
        if page is not None:
            (folder / config.name / "index.html").write_text(page, encoding="utf-8")
        return Ended()

    monkeypatch.setattr(launch, "launch", run)
    if page:
        train.train("demo", dry_run=False, name="x", runs=tmp_path, as_json=False)
    else:
        with pytest.raises(typer.Exit) as ended:
            train.train("demo", dry_run=False, name="x", runs=tmp_path, as_json=False)
        assert ended.value.exit_code == 1
    shown = capsys.readouterr().out
    assert ("; see " in shown) == bool(page)
    assert ("no report" in shown) == (not page)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("status",), "usage", "Missing argument 'RUN'"),
        (("status", "x", "--bogus"), "usage", "No such option: --bogus"),
        (("status", "x", "-v", "-q"), "usage", "exclude each other"),
        (("status", "nope"), "configuration", "no run has started there"),
        (("train", "demo", "train.learning_rat=1", "--dry-run"), "configuration", "train.learning_rat"),
        (("train", "demo", "train.lr", "--dry-run"), "configuration", "write KEY=VALUE"),
    ],
)
def test_json_has_an_error_object_for_wrong_input(llmi, arguments, kind, words):
    result = llmi(*arguments, "--json")
    error = json.loads(result.stdout)["error"]
    assert (result.returncode, error["exit_code"], error["kind"]) == (2, 2, kind)
    assert words in error["message"]


def test_an_override_sets_any_key(llmi):
    arguments = ("train.lr=2e-6", "tools.search.provider=serpapi", "data.train=[a.parquet, b.parquet]")
    answer = json.loads(llmi("train", "qwen3_4b_grpo", *arguments, "--dry-run", "--json").stdout)
    assert answer["config"]["train"]["lr"] == 2e-6
    assert answer["config"]["data"]["train"] == ["a.parquet", "b.parquet"]
    assert "actor_rollout_ref.actor.optim.lr=2e-06" in answer["overrides"]


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (Stopped(signal.SIGINT), 130, "interrupted"),
        (Stopped(signal.SIGTERM), 143, "interrupted"),
        (InfrastructureFault(Cause.WORKER_LOST, "gone"), 1, "failed"),
        (ConfigError("wrong"), 2, "configuration"),
    ],
)
def test_exit_codes_and_error_objects(monkeypatch, capsys, error, code, kind):
    from coordinator.cli import main as cli

    def app(**options):
        raise error

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["llmi", "anything", "--json"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == code
    found = json.loads(capsys.readouterr().out)["error"]
    assert (found["exit_code"], found["kind"]) == (code, kind)


def test_an_unexpected_error_has_an_error_object_and_a_traceback(monkeypatch, capsys):
    from coordinator.cli import main as cli

    monkeypatch.setattr(cli, "app", lambda **options: 1 // 0)
    monkeypatch.setattr(sys, "argv", ["llmi", "--json"])
    with pytest.raises(ZeroDivisionError):
        cli.main()
    assert "ZeroDivisionError" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_quiet_hides_progress_and_verbose_logs(monkeypatch):
    import logging

    from coordinator.cli import verbosity
    from coordinator.console import terminal

    root, logger = logging.getLogger(), logging.getLogger("coordinator")
    monkeypatch.setattr(terminal, "_quiet", False)
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(logger, "level", logger.level)
    verbosity.apply(verbose=True, quiet=False)
    assert logger.level == logging.INFO
    assert not terminal.make_console(stderr=True).quiet
    verbosity.apply(verbose=False, quiet=True)
    assert root.level == logging.ERROR
    assert terminal.make_console(stderr=True).quiet
    assert not terminal.make_console().quiet
