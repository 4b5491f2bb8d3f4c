"""Lua scripts: documented in their headers, packaged, and called by their SHA-1."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import redis
from redis.exceptions import NoScriptError
from setuptools import Distribution

from workers.redis_script import Script

ROOT = Path(__file__).parents[3]
FOLDERS = ("workers", "policy", "rewards", "evaluation", "coordinator", "llmi")
SCRIPTS = sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.lua"))


class Server:
    """A client of a server that caches scripts; `sent` lists the commands."""

    def __init__(self) -> None:
        self.cached = False
        self.sent: list[str] = []

    def evalsha(self, sha: str, count: int, *rest: object) -> tuple[object, ...]:
        self.sent.append("evalsha")
        if not self.cached:
            raise NoScriptError("NOSCRIPT")
        return (count, *rest)

    def eval(self, source: str, count: int, *rest: object) -> tuple[object, ...]:
        self.sent.append("eval")
        self.cached = True
        return (count, *rest)


@pytest.mark.parametrize("path", SCRIPTS, ids=str)
def test_a_script_documents_its_keys_its_arguments_and_what_it_returns(path: Path) -> None:
    lines = (ROOT / path).read_text().splitlines()
    header = lines[: next(number for number, line in enumerate(lines) if not line.startswith("--"))]
    assert header[0].endswith("."), "the first line says what the script does"
    for word in ("KEYS", "ARGV", "Returns"):
        assert any(line.startswith(f"-- {word}") for line in header), word


def test_every_script_is_packaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    distribution = Distribution()
    distribution.parse_config_files(["pyproject.toml"])
    distribution.include_package_data = False  # by the patterns alone: no egg-info is written
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    packaged = {Path(folder) / name for _, folder, _, names in build.data_files for name in names}
    assert SCRIPTS
    assert set(SCRIPTS) <= packaged


def test_no_script_stands_in_a_python_file() -> None:
    pattern = r"redis\.p?call\("
    command = ["grep", "-rlE", pattern, "--include=*.py", *FOLDERS]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == ""


def test_the_source_is_sent_once_and_again_after_a_restart() -> None:
    script, server = Script("workers.broker.scripts", "commit"), Server()
    assert script(server, ["k"], ["a", 1]) == (1, "k", "a", 1)
    script(server, ["k"])
    server.cached = False
    script(server, ["k"])
    assert server.sent == ["evalsha", "eval", "evalsha", "evalsha", "eval"]


def test_a_pipeline_gets_the_source() -> None:
    script = Script("workers.broker.scripts", "commit")
    pipeline = redis.Redis().pipeline()
    script(pipeline, ["k"], ["a"])
    [(command, _)] = pipeline.command_stack
    assert command == ("EVAL", script.source, 1, "k", "a")
