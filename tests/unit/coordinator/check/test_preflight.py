"""Problems of providers, the demo's parts, folders, Ray and the jail, reported before a run starts."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from coordinator.check import dry_run, folders, inputs, preflight, services
from coordinator.check.doctor import run as doctor_run
from coordinator.check.doctor.finding import State
from coordinator.config import settings as config
from coordinator.scale.nodes.needs import lacking
from llmi.demo import evaluation as evaluation_demo
from llmi.demo.build import Kind, Parts, build
from llmi.demo.policy.build import policy_folder
from llmi.demo.prompts.corpus import write_dataset
from llmi.demo.run import configure, demo
from policy.tracking import backends
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.providers import registry as providers
from workers.providers.http import keys
from workers.providers.http.endpoint import address_problems
from workers.sandbox import jail_report
from workers.settings import REDIS_ENV, ToolSettings
from workers.storage.cache import CACHE_ENV, cache_folder

NAMES = (
    CACHE_ENV,
    REDIS_ENV,
    config.RAY_ENV,
    keys.SERP_KEY_ENV,
    keys.GENERATE_URL_ENV,
    keys.EDIT_URL_ENV,
    "ARK_API_KEY",
    "OPENAI_API_KEY",
    "OTHER_KEY",
)
ARK = {
    "provider": "openai",
    "base_url": "https://ark.cn-beijing.volces.com/api/v3",
    "model": "doubao-seedream-5-0-260128",
}
OWN = {"provider": "openai", "base_url": "http://127.0.0.1:8091/v1", "model": "m"}


def held(*missing: str) -> jail_report.JailReport:
    layers = ("landlock", "seccomp", "netns", "private_root", "processes")
    return jail_report.JailReport({name: name not in missing for name in layers}, "namespaces")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jail_report, "probe", lambda: held())
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "captions.jsonl").write_text("{}")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")


def problems(**changed: Any) -> list[str]:
    sound: dict[str, Any] = {
        "search": {"library": "pictures"},
        "diffusion": {"model": "model"},
        "edit": {"model": "model"},
    }
    return providers.check(ToolSettings.model_validate(sound | changed))


def test_no_problem_is_reported_when_nothing_is_missing() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("changed", "field", "hint"),
    [
        ({"search": {"provider": "serpapi"}}, "tools.search.provider", "SERP_API_KEY"),
        ({"search": {"library": "nowhere"}}, "tools.search.library", "captions.jsonl"),
        ({"diffusion": ARK}, "tools.diffusion.api_key_env", "ARK_API_KEY"),
        ({"edit": ARK | {"api_key_env": "OTHER_KEY"}}, "tools.edit.api_key_env", "OTHER_KEY"),
        ({"edit": OWN | {"api_key_env": "OTHER_KEY"}}, "tools.edit.api_key_env", "OTHER_KEY"),
        (
            {"edit": OWN | {"base_url": "https://api.openai.com/v1"}},
            "tools.edit.api_key_env",
            "OPENAI_API_KEY",
        ),
        ({"diffusion": {"provider": "openai", "model": "m"}}, "tools.diffusion.base_url", "http://"),
        (
            {"edit": {"provider": "openai", "base_url": "http://127.0.0.1:8091/v1"}},
            "tools.edit.model",
            "endpoint",
        ),
        ({"edit": {"provider": "qwen_server"}}, "tools.edit.base_url", "QWEN_EDIT_SERVER_URL"),
        ({"diffusion": {"model": ".cache/nothing"}}, "tools.diffusion.model", "model_index.json"),
        ({"edit": {"model": "model", "size": "2K"}}, "tools.edit.size", "1024x768"),
        ({"edit": {"model": "model", "size": "100x100"}}, "tools.edit.size", "multiples of 16"),
        (
            {"edit": {"model": "model", "pipeline": "QwenImagePipeline"}},
            "tools.edit.pipeline: QwenImagePipeline takes no image",
            "QwenImageEditPlusPipeline",
        ),
    ],
)
def test_a_missing_value_is_named_with_field_and_hint(changed: Any, field: str, hint: str) -> None:
    (said,) = problems(**changed)
    assert said.startswith(field)
    assert hint in said


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"search": {"provider": "serpapi"}}, "SERP_API_KEY"),
        ({"diffusion": ARK}, "ARK_API_KEY"),
        ({"diffusion": {"provider": "qwen_server"}}, "QWEN_IMAGE_SERVER_URL"),
    ],
)
def test_a_value_from_the_environment_is_not_missing(
    changed: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:8091")
    assert problems(**changed) == []


def test_a_hub_id_and_a_server_without_a_key_are_fine() -> None:
    assert problems(diffusion={"model": "Qwen/Qwen-Image"}, edit=OWN) == []


@pytest.mark.parametrize(
    "pipeline",
    ["QwenImageEditPlusPipeline", "QwenImageEditPipeline", "Flux2KleinPipeline", "DiffusionPipeline"],
)
def test_an_edit_pipeline_that_may_take_an_image_is_accepted(pipeline: str) -> None:
    assert problems(edit={"model": "model", "pipeline": pipeline}) == []


@pytest.mark.parametrize(
    ("name", "command"), [("demo", "`llmi demo`"), ("demo_vl", "`llmi demo --model vl`")]
)
def test_unbuilt_parts_of_the_demo_name_the_command_that_builds_them(
    name: str, command: str, tmp_path: Path
) -> None:
    shipped = config.load(name, {"name": "x"})
    with pytest.raises(ConfigError) as caught:
        preflight.check(shipped, tmp_path / "runs" / "x")
    [said] = str(caught.value).splitlines()
    assert said.startswith("train.model")
    assert command in said
    assert dry_run.resolve(shipped, tmp_path / "runs", Console(quiet=True))["problems"] == [said]


def test_problems_of_parts_that_replace_the_demos_are_reported(tmp_path: Path) -> None:
    tools = {"search": {"library": "mine"}, "diffusion": {"model": "mine/d"}, "edit": {"model": "mine/e"}}
    own = config.load("demo", {"train.model": "owner/model", "data.train": ["a"], "data.test": ["a"], **{
        f"tools.{name}.{key}": value for name, one in tools.items() for key, value in one.items()
    }})  # fmt: skip
    assert inputs.unbuilt(own) == []
    assert any("captions.jsonl" in said for said in preflight.missing(own))


def test_a_tracker_without_its_package_is_found_by_each_check(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(backends.PACKAGES, "mlflow", ("no_such_package",))
    chosen = config.load("demo", {"train.trackers": ["tensorboard", "mlflow"]})
    said = backends.missing(chosen.train.trackers)
    assert len(said) == 1
    assert said[0].startswith("train.trackers: mlflow needs the package no_such_package")
    assert said[0] in dry_run.resolve(chosen, tmp_path / "runs", Console(quiet=True))["problems"]
    with pytest.raises(ConfigError, match="no_such_package"):
        preflight.check(chosen, tmp_path / "runs" / "demo")
    findings = [
        one for one in doctor_run.examine(chosen, tmp_path / "runs" / "demo") if one.name == "trackers"
    ]
    assert [(one.state, one.hint) for one in findings] == [(State.FAIL, said[0].partition("; ")[2])]


def build_parts(cache: Path, kind: Kind, seed: int) -> None:
    """What a demo leaves, as far as checks look at it."""
    parts = Parts(cache, kind, seed)
    write_dataset(parts.prompts, seed=seed, train=2, test=2)
    for folder, name in (
        (policy_folder(kind, cache, seed=seed), "config.json"),
        (parts.library, "captions.jsonl"),
        (parts.image_model, "model_index.json"),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


@pytest.mark.parametrize("cache", [None, "elsewhere"])
@pytest.mark.parametrize(
    ("name", "kind", "seed"), [("demo", "text", 1), ("demo_vl", "vl", 1), ("demo", "text", 7)]
)
def test_the_shipped_configurations_name_parts_that_the_demo_builds(
    name: str, kind: Kind, seed: int, cache: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cache:
        monkeypatch.setenv(CACHE_ENV, str(tmp_path / cache))
    build_parts(cache_folder(), kind, seed)
    shipped = config.load(name, {"train.seed": seed})
    policy = policy_folder(kind, cache_folder(), seed=seed)
    built = configure(Parts(cache_folder(), kind, seed), policy, "", None)
    assert shipped.train.model == built.train.model
    assert (shipped.data, shipped.tools) == (built.data, built.tools)
    assert inputs.unbuilt(shipped) == []
    assert [*preflight.missing(shipped), *inputs.data(shipped)] == []


def test_a_node_of_the_demos_evaluation_serves_its_authors_queue_once_it_is_built(tmp_path: Path) -> None:
    assert "evaluate" in lacking(config.load_services("evaluate_demo"))
    build_parts(cache_folder(), "vl", 1)
    settings = config.load_services("evaluate_demo")
    policy = policy_folder("vl", cache_folder(), seed=1)
    assert (
        settings.author.model
        == evaluation_demo.configure(Parts(cache_folder(), "vl", 1), policy, tmp_path).author.model
    )
    assert lacking(settings) == {}


def test_a_policy_with_shortened_training_is_found(tmp_path: Path) -> None:
    whole = policy_folder("text", tmp_path, seed=1)
    cut = whole.with_name(f"{whole.name}-cut-short")
    cut.mkdir()
    assert policy_folder("text", tmp_path, seed=1) == cut
    whole.mkdir()
    assert policy_folder("text", tmp_path, seed=1) == whole


def test_a_part_that_no_demo_builds_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"demo:tiny-texts: no demo builds that; name one of tiny-text"):
        config.load("demo", {"train.model": "demo:tiny-texts"})


def test_a_part_that_was_removed_after_the_demo_is_named_with_its_command(tmp_path: Path) -> None:
    build_parts(cache_folder(), "text", 7)
    shutil.rmtree(Parts(cache_folder(), "text", 7).library)
    [said] = inputs.unbuilt(config.load("demo", {"train.seed": 7}))
    assert said.startswith("tools.search.library: ")
    assert "`llmi demo --seed 7`" in said


def test_other_problems_are_reported_beside_unbuilt_parts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run folder exists[^\n]*\n[^\n]*llmi demo"):
        preflight.check(config.load("demo"), tmp_path)


def start_demo(runs: Path) -> None:
    demo("text", "x", 1, 1, runs, Console(quiet=True))


def test_a_missing_layer_of_the_jail_stops_the_demo_before_it_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jail_report, "probe", lambda: held("landlock", "netns"))
    with pytest.raises(ConfigError) as caught:
        start_demo(tmp_path / "runs")
    [said] = str(caught.value).splitlines()
    assert said.startswith("tools.code: the jail lacks landlock, which tools.code.require names.")
    assert "Linux 5.13 or later" in said
    assert not (tmp_path / ".cache").exists()


def test_a_jail_that_cannot_be_probed_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> jail_report.JailReport:
        raise InfrastructureFault(Cause.SANDBOX, "the zygote failed (EOFError)")

    monkeypatch.setattr(jail_report, "probe", broken)
    [said] = services.jail(config.load("demo"))
    assert said.startswith("tools.code: the zygote failed (EOFError); it needs Linux")


def test_the_jail_is_probed_only_where_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jail_report, "probe", lambda: held("landlock"))
    shipped = config.load("demo")
    assert services.jail(shipped)
    weaker = config.load("demo", {"tools.code": {"require": []}})
    elsewhere = config.load("demo", {"workers.pools": [{"queues": ["search"]}]})
    assert services.jail(weaker) == services.jail(elsewhere) == []
    monkeypatch.setenv(config.RAY_ENV, "head:6379")
    assert services.jail(shipped) == []


def test_a_read_only_cache_stops_the_demo_before_it_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_ENV, str(tmp_path / "locked" / "cache"))
    (tmp_path / "locked").mkdir()
    may = os.access
    # Not by permissions: root, as tests in a container are, may write everywhere.
    monkeypatch.setattr(
        folders.os, "access", lambda path, mode: path != tmp_path / "locked" and may(path, mode)
    )
    with pytest.raises(ConfigError) as caught:
        start_demo(tmp_path / "runs")
    [said] = str(caught.value).splitlines()
    assert said.startswith(f"LLMI_CACHE: {tmp_path}/locked/cache: may not write in {tmp_path}/locked;")
    assert "name another folder" in said


def test_a_cache_below_a_file_stops_the_demo_before_it_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_ENV, str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigError, match=r"^LLMI_CACHE: .*/file is no folder; name another$"):
        start_demo(tmp_path / "runs")


def test_a_cache_that_permissions_allow_and_the_file_system_refuses_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^LLMI_CACHE: /proc/llmi cannot be made .*name another folder"):
        build(Parts(Path("/proc/llmi"), "text", 1), Console(quiet=True))


@pytest.mark.parametrize(("lacking", "problems"), [(0, 0), (1, 1)])
def test_a_full_disk_is_named(
    lacking: int, problems: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = folders.FREE_MIB * folders.MIB - lacking
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    said = folders.run_folder(tmp_path / "runs" / "x")
    assert len(said) == problems
    assert all(
        f"--dir: {tmp_path}/runs/x: {tmp_path} has {folders.FREE_MIB - 1} MiB" in line for line in said
    )


@pytest.mark.parametrize(("cpus", "fits"), [(2, False), (3, True), (None, True)])
def test_workers_must_leave_cpus_for_the_trainer(cpus: int | None, fits: bool) -> None:
    pools = [{"queues": ["code"], "low": 2, "high": 8}, {"queues": ["search"], "low": 0}]
    shipped = config.load("demo", {"workers.pools": pools, "ray.num_cpus": cpus})
    assert [problem.startswith("ray.num_cpus: 2") for problem in services.cluster(shipped)] == [True] * (
        not fits
    )


def test_an_unreachable_ray_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert services.ray_head() == []
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv(config.RAY_ENV, address)
        assert services.ray_head() == []
    [problem] = services.ray_head()
    assert f"RAY_ADDRESS: {address} is not reached" in problem


def test_a_file_named_demo_does_not_replace_the_demos_configuration(tmp_path: Path) -> None:
    for name in ("demo", "demo_vl", "evaluate_demo"):
        (tmp_path / name).write_text("something else")
    for kind in ("text", "vl"):
        assert configure(Parts(tmp_path, kind, 1), Path("model"), "run", None).train.modality == kind
    assert (
        evaluation_demo.configure(Parts(tmp_path, "text", 1), Path("model"), tmp_path).author.model == "model"
    )


@pytest.mark.parametrize(
    ("url", "wrong"), [("", " is empty; set it to one"), ("h:1", " is not an http(s) URL; set it")]
)
def test_an_address_that_is_missing_or_wrong_is_named(url: str, wrong: str) -> None:
    [problem] = address_problems("tools.edit.base_url", url)
    assert problem.startswith(f"tools.edit.base_url{wrong}")
