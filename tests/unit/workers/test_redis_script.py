"""Lua scripts: documented in their headers, packaged, and called by their SHA-1."""

from __future__ import annotations

import re
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
LIBRARY = Path("workers/broker/scripts/queue.lua")  # no script: others contain it


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


@pytest.mark.parametrize("path", [path for path in SCRIPTS if path != LIBRARY], ids=str)
def test_a_script_documents_its_keys_its_arguments_and_what_it_returns(path: Path) -> None:
    lines = (ROOT / path).read_text().splitlines()
    header = lines[: next(number for number, line in enumerate(lines) if not line.startswith("--"))]
    assert header[0].endswith("."), "the first line says what the script does"
    for word in ("KEYS", "ARGV", "Returns"):
        assert any(line.startswith(f"-- {word}") for line in header), word


def test_the_keys_of_the_queues_are_documented_in_one_place() -> None:
    """The header of the library names every key that a script of the queues makes."""
    header = (ROOT / LIBRARY).read_text().partition("\nlocal ")[0]
    sources = {path: (ROOT / path).read_text() for path in SCRIPTS if path.parent == LIBRARY.parent}
    made = {key for source in sources.values() for key in re.findall(r"'(llmi:\w+:)' \.\.", source)}
    assert made >= {"llmi:request:", "llmi:held:", "llmi:queue:", "llmi:wake:"}
    assert {key for key in made if key not in header} == set()


def test_a_script_contains_its_library_once() -> None:
    script = Script("workers.broker.scripts", "claim", "queue")
    library = (ROOT / LIBRARY).read_text()
    assert script.source.startswith(library)
    assert script.source.count(library) == 1


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
