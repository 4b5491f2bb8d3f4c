"""The files that containers and dashboards are started with name things that exist, and fit each other."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import redis
import yaml
from places import REPOSITORY
from typer.testing import CliRunner
from waiting import wait_until

from coordinator.cli.main import app
from coordinator.config.paths import placed
from coordinator.config.settings import load, load_services
from coordinator.host.redis_server import _binary
from coordinator.scale.nodes.joining import prepare, same_settings
from coordinator.state import claim
from workers.errors import ConfigError
from workers.redis_client import connect_redis
from workers.settings import QueueSettings

OPS = REPOSITORY / "ops"
LOOPBACK, PASSWORD = "127.0.0.1", "a1b2c3"
SECRETS = {
    "SERP_API_KEY",
    "ARK_API_KEY",
    "OPENAI_API_KEY",
    "LLMI_REDIS_PASSWORD",
    "REDISCLI_AUTH",
    "GF_SECURITY_ADMIN_PASSWORD",
    "FLOWER_BASIC_AUTH",
}
IN_IMAGE = Path("/llmi")  # where ops/Dockerfile puts the repository


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((OPS / "compose.yaml").read_text())


def read(name: str) -> Any:
    return yaml.safe_load((OPS / name).read_text())


def own(compose: dict[str, Any]) -> dict[str, list[str]]:
    """The commands of the services that run in our image."""
    return {name: s["command"] for name, s in compose["services"].items() if s["image"] == "llmi"}


def test_every_mounted_file_is_there(compose: dict[str, Any]) -> None:
    mounts = [v for s in compose["services"].values() for v in s.get("volumes", ()) if v.startswith("./")]
    assert mounts
    assert all((OPS / mount.split(":")[0]).exists() for mount in mounts)


def test_every_named_volume_is_declared(compose: dict[str, Any]) -> None:
    names = [v.rpartition(":")[0] for s in compose["services"].values() for v in s.get("volumes", ())]
    named = {name.replace("${LLMI_DATA:-data}", "data") for name in names if not name.startswith("./")}
    assert named <= set(compose["volumes"])


def test_commands_name_programs_of_the_repository_and_options_that_they_know(compose: dict[str, Any]) -> None:
    commands = own(compose)
    assert set(commands) == {"workers", "metrics", "flower"}
    for program, *arguments in commands.values():
        path = Path(program).relative_to(IN_IMAGE)
        assert str(path) == ".venv/bin/llmi" or os.access(REPOSITORY / path, os.X_OK)
        resolved = [substituted(argument, {}) for argument in arguments]
        for name in (a for a in resolved if a.startswith(str(IN_IMAGE))):
            assert (REPOSITORY / Path(name).relative_to(IN_IMAGE)).is_file()
    helps = {
        "workers": CliRunner().invoke(app, ["workers", "start", "--help"], env={"COLUMNS": "200"}).output,
        "metrics": CliRunner().invoke(app, ["metrics", "--help"], env={"COLUMNS": "200"}).output,
        "flower": (OPS / "flower.sh").read_text(),
    }
    for service, command in commands.items():
        known = set(re.findall(r"--[a-z][a-z-]*", helps[service]))
        assert {option for option in command if option.startswith("--")} <= known


@pytest.fixture
def started(compose: dict[str, Any], tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The Redis of the compose file, by its own command: its port and process."""
    shell, option, script = compose["services"]["redis"]["command"]
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    here = f"valkey-server - --port {port} --bind {LOOPBACK} --dir {tmp_path}"
    script = script.replace("$$", "$").replace("valkey-server -", here)
    environment = {"PATH": f"{_binary().parent}:{os.environ['PATH']}", "REDISCLI_AUTH": PASSWORD}
    with subprocess.Popen([shell, option, script], env=environment) as process:

        def listens() -> bool:
            assert process.poll() is None
            with socket.socket() as probe:
                return not probe.connect_ex((LOOPBACK, port))

        wait_until(listens)
        yield port, process.pid
        process.terminate()


def test_the_redis_keeps_everything_and_asks_for_a_password(
    compose: dict[str, Any], started: tuple[int, int]
) -> None:
    port, pid = started
    with redis.Redis(port=port, password=PASSWORD) as client:
        kept = client.config_get("appendonly", "maxmemory-policy", "appendfsync")
    assert kept == {"appendonly": "yes", "maxmemory-policy": "noeviction", "appendfsync": "everysec"}
    with redis.Redis(port=port) as unauthenticated, pytest.raises(redis.AuthenticationError):
        unauthenticated.ping()
    server = psutil.Process(pid)
    assert server.name() == "valkey-server", "it is the process that gets a container's SIGTERM"
    assert PASSWORD not in " ".join(server.cmdline())
    services = compose["services"]
    assert services["redis"]["environment"]["REDISCLI_AUTH"].startswith("${LLMI_REDIS_PASSWORD:?")
    for name in ("workers", "metrics", "flower"):
        url = services[name]["environment"]["LLMI_REDIS_URL"]
        assert url == "redis://:${LLMI_REDIS_PASSWORD}@redis:6379/0"


def substituted(argument: str, env: dict[str, str]) -> str:
    """As compose does with `${NAME-default}`: the default only where the variable is not set at all."""
    return re.sub(r"\$\{(\w+)-([^}]*)\}", lambda found: env.get(found[1], found[2]), argument)


def test_workers_take_the_configuration_of_a_run(
    compose: dict[str, Any], queue_settings: QueueSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: workers with ops/services.yaml alone could serve no run of a shipped configuration."""
    url = queue_settings.redis_url
    monkeypatch.setenv("LLMI_REDIS_URL", url)
    command = compose["services"]["workers"]["command"]
    named = command[command.index("--config") + 1]
    volumes = compose["services"]["workers"]["volumes"]
    assert substituted(named, {}) == str(IN_IMAGE / "ops/services.yaml")
    for name in ("qwen3_4b_grpo", "qwen3_30b_a3b_gspo", "qwen2_5_vl_7b_grpo"):
        run = load(name)
        given = substituted(named, {"LLMI_CONFIG_NAME": name})
        node = prepare(redis_url=url, config=given, queues=["code"], role="all", node="n")
        assert same_settings(node.config, placed(run)), "the run would refuse these workers"
        assert any(run.blobs.url.startswith(volume.rpartition(":")[2] + "/") for volume in volumes)
    assert substituted(named, {"LLMI_CONFIG_NAME": ""}) == ""
    with pytest.raises(ConfigError, match="none is published"):
        prepare(redis_url=url, config="", queues=["code"], role="all", node="n")
    with connect_redis(queue_settings.url) as client:
        client.set(claim.CONFIG_KEY, load("qwen3_4b_grpo").model_dump_json())
    joined = prepare(redis_url=url, config="", queues=["code"], role="all", node="n")
    assert same_settings(joined.config, load("qwen3_4b_grpo"))


def test_the_image_is_built_from_files_that_exist(compose: dict[str, Any]) -> None:
    build = compose["x-llmi"]["build"]
    context = (OPS / build["context"]).resolve()
    assert context == REPOSITORY
    assert (context / build["dockerfile"]).is_file()
    steps = (context / build["dockerfile"]).read_text()
    assert f"WORKDIR {IN_IMAGE}" in steps
    programs = re.findall(r"^RUN (ops/\S+)", steps, re.MULTILINE)
    assert programs == ["ops/install.sh"]
    assert all(os.access(REPOSITORY / program, os.X_OK) for program in programs)
    ignored = (OPS / "Dockerfile.dockerignore").read_text().split()
    assert {".venv", ".git", "runs"} <= set(ignored)


def test_prometheus_looks_where_the_exporter_serves(compose: dict[str, Any]) -> None:
    (job,) = read("prometheus/prometheus.yml")["scrape_configs"]
    address = urlsplit(job["http_sd_configs"][0]["url"])
    command = compose["services"][address.hostname]["command"]
    assert command[command.index("--port") + 1] == str(address.port)
    assert address.path == "/targets"
    assert read("prometheus/prometheus.yml")["rule_files"] == ["alerts.yml"]


def test_grafana_reads_the_board_and_asks_prometheus(compose: dict[str, Any]) -> None:
    (source,) = read("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    address = urlsplit(source["url"])
    assert f"127.0.0.1:{address.port}:{address.port}" in compose["services"][address.hostname]["ports"]
    (provider,) = read("grafana/provisioning/dashboards/llmi.yaml")["providers"]
    grafana = compose["services"]["grafana"]
    assert f"./grafana/llmi.json:{provider['options']['path']}/llmi.json:ro" in grafana["volumes"]
    for panel in board():
        assert all(t["datasource"]["uid"] == source["uid"] for t in panel.get("targets", ()))


def test_published_ports_require_a_password(compose: dict[str, Any]) -> None:
    published = {
        (name, port.rpartition(":")[0].rpartition(":")[0])
        for name, service in compose["services"].items()
        for port in service.get("ports", ())
    }
    assert published == {
        ("redis", "${LLMI_BIND:-127.0.0.1}"),  # with a password: see above
        ("flower", LOOPBACK),
        ("prometheus", LOOPBACK),
        ("grafana", LOOPBACK),
    }
    environment = compose["services"]["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_PASSWORD:?")
    assert not any(name.startswith("GF_AUTH") for name in environment), "anonymous access is off"
    flower = compose["services"]["flower"]["environment"]
    assert flower["FLOWER_BASIC_AUTH"].startswith("${FLOWER_BASIC_AUTH:?")


def test_workers_in_containers_can_be_scraped_and_store_images_on_the_volume(compose: dict[str, Any]) -> None:
    config = load_services(OPS / "services.yaml")
    assert config.metrics.bind == "0.0.0.0"
    assert config.blobs.url.startswith("/data/")
    assert any(volume.endswith(":/data") for volume in compose["services"]["workers"]["volumes"])


def test_no_secret_is_written_in_a_file_of_the_containers(compose: dict[str, Any]) -> None:
    """Secrets come from the environment, as `${NAME}` or by the name alone; the configuration has none."""
    for service in compose["services"].values():
        variables = service.get("environment", {})
        for name in SECRETS & set(variables):
            assert variables[name] is None or variables[name].startswith("${"), name
    config = json.dumps(load_services(OPS / "services.yaml").model_dump(mode="json"))
    assert "@" not in urlsplit(json.loads(config)["queue"]["redis_url"]).netloc
    text = (OPS / "services.yaml").read_text() + (OPS / "Dockerfile").read_text()
    assert [name for name in SECRETS if name in text] == []


def board() -> list[dict[str, Any]]:
    return json.loads((OPS / "grafana" / "llmi.json").read_text())["panels"]


def test_panels_have_names_of_their_own_and_do_not_overlap() -> None:
    panels = board()
    for field in ("id", "title"):
        assert len({panel[field] for panel in panels}) == len(panels)
    taken = [
        set(itertools.product(range(g["x"], g["x"] + g["w"]), range(g["y"], g["y"] + g["h"])))
        for g in (panel["gridPos"] for panel in panels)
    ]
    assert all(x < 24 for cells in taken for x, _ in cells)
    assert all(not a & b for a, b in itertools.combinations(taken, 2))


OPEN = ("--metrics", "http://127.0.0.1:1", "--host", "0.0.0.0")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give a run's folder, or --metrics URL"),
        (("nowhere",), "nowhere/endpoints.json does not exist"),
        (("--bad",), "no option --bad"),
        (("--metrics",), "--metrics needs a value"),
        (OPEN, "--web-config FILE with basic_auth_users"),
        ((*OPEN, "--web-config", str(OPS / "services.yaml")), "--web-config FILE with basic_auth_users"),
    ],
)
def test_prometheus_says_what_is_missing(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    command = [str(OPS / "prometheus.sh"), *arguments]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert says in ended.stderr


def test_without_prometheus_and_apt_it_says_what_to_do(tmp_path: Path) -> None:
    for program in ("bash", "readlink", "dirname", "sed"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    env = {"PATH": str(tmp_path), "LLMI_CACHE": str(tmp_path / "cache")}
    command = [str(tmp_path / "bash"), str(OPS / "prometheus.sh"), "--metrics", "http://127.0.0.1:1"]
    ended = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert "no prometheus on PATH, and no apt-get" in ended.stderr


@pytest.mark.parametrize("name", ["start_workers", "stop_workers", "serve_judges", "serve_images", "flower"])
def test_a_script_without_an_installation_says_how_to_install(name, tmp_path):
    (tmp_path / "ops").mkdir()
    script = shutil.copy(OPS / f"{name}.sh", tmp_path / "ops")
    ended = subprocess.run([script], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert f"{name}: no .venv here; run ops/install.sh" in ended.stderr
