"""Processes do not depend on the working directory or the environment of the shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workers.process import interpreter
from workers.process.parent_death import start_child

LIBRARIES = ("verl", "celery", "redis", "torch", "workers", "policy", "yaml")
STANDARD = ("json", "ctypes", "signal", "logging", "typing")
HOSTILE = "raise SystemExit('imported from the working directory')\n"


def shadow(folder: Path, *names: str) -> None:
    """Modules in `folder` that take the place of others, by turns files and packages."""
    for number, name in enumerate(names):
        if number % 2:
            (folder / f"{name}.py").write_text(HOSTILE)
        else:
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text(HOSTILE)


SHOWS = (
    "import json, locale, os, redis, sys, typing, workers;"
    "print(json.dumps([locale.getpreferredencoding(False), os.environ.get('MPLBACKEND'), sys.path]))"
)


@pytest.mark.parametrize("path", [None, "", ":", ":/x", "/x::/y", "/x:"])
def test_a_child_imports_nothing_from_its_working_directory(
    tmp_path: Path, path: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    shadow(hostile, *LIBRARIES, *STANDARD)
    monkeypatch.chdir(hostile)
    if path is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", path)
    for name, value in {
        "LC_ALL": "C",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": "latin-1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }.items():
        monkeypatch.setenv(name, value)
    log = tmp_path / "log"
    process = start_child([sys.executable, "-c", SHOWS], log=log)
    assert process.wait(60) == 0, log.read_text(encoding="utf-8")
    encoding, backend, found = json.loads(log.read_text(encoding="utf-8"))
    assert (encoding.lower(), backend) == ("utf-8", "Agg")
    assert not {"", str(hostile)} & set(found)
    assert [name for name in found if name in ("/x", "/y")] == list(filter(None, (path or "").split(":")))


@pytest.mark.parametrize("path", ["", ":"])
def test_the_command_imports_nothing_from_its_working_directory(tmp_path: Path, path: str) -> None:
    # With an empty entry, its first modules are loaded before it can do anything about it.
    shadow(tmp_path, *(("verl", "torch", "celery") if path else LIBRARIES))
    llmi = Path(sys.executable).with_name("llmi")
    command = [str(llmi), "train", "demo", "--dry-run", "--name", "x", "--json"]
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, done.stderr  # the demo is not built here
    assert json.loads(done.stdout)["name"] == "x"


def test_characters_that_the_terminal_lacks_are_replaced(tmp_path: Path) -> None:
    code = (
        "from workers.process import interpreter; interpreter.set_up_process(); print('done \\u2192 \\u2713')"
    )
    env = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=60)
    assert done.stdout == b"done ? ?\n", done.stderr


def test_a_command_reads_and_writes_utf_8_in_any_locale() -> None:
    code = (
        "import coordinator.cli.main as cli, locale, sys;"
        "cli.app = lambda **_: print(locale.getpreferredencoding(False), sys.argv[1:]);"
        "cli.main()"
    )
    env = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", code, "é", "two words"]
    done = subprocess.run(command, env=env, capture_output=True, timeout=60)
    assert done.stdout.decode().strip() == "utf-8 ['é', 'two words']", done.stderr
    ignoring = subprocess.run([sys.executable, "-E", "-X", "utf8=0", *command[1:]], env=env, timeout=60)
    assert ignoring.returncode == 0  # and does not begin again for ever


@pytest.mark.parametrize("home", ["/", "", "/nonexistent", "/proc/sys"])
def test_a_home_that_is_not_writable_is_replaced(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter, "_home", lambda: "/")
    monkeypatch.setattr(interpreter.tempfile, "gettempdir", lambda: str(tmp_path))
    found = Path(interpreter.child_environment({"HOME": home})["HOME"])
    assert found.parent == tmp_path
    assert found.stat().st_mode & 0o777 == 0o700
    assert interpreter.child_environment({"HOME": home})["HOME"] == str(found)


def test_a_writable_home_is_kept_and_an_unset_one_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert interpreter.child_environment({"HOME": str(tmp_path)})["HOME"] == str(tmp_path)
    monkeypatch.setattr(interpreter, "_home", lambda: str(tmp_path))
    assert interpreter.child_environment({})["HOME"] == str(tmp_path)


def test_the_model_cache_in_a_read_only_home_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    monkeypatch.setattr(interpreter, "_writable", lambda folder: folder != str(tmp_path))
    env = interpreter.child_environment({"HOME": str(tmp_path)})
    assert env["HF_HOME"] == str(tmp_path / ".cache" / "huggingface")
    assert interpreter.child_environment({"HOME": str(tmp_path), "HF_HOME": "/hub"})["HF_HOME"] == "/hub"


def test_a_private_folder_of_another_user_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter.tempfile, "gettempdir", lambda: str(tmp_path))
    foreign = tmp_path / f"llmi-home-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir()
    foreign.symlink_to(tmp_path / "elsewhere")
    assert interpreter.private_folder("home") != foreign


@pytest.mark.parametrize("named", ["/nonexistent/tmp", "/proc/sys", "", "/etc/passwd"])
def test_an_unusable_tmpdir_is_replaced(named: str) -> None:
    env = {"TMPDIR": named}
    interpreter.set_up(env)
    assert env["TMPDIR"] in interpreter.SHORT_FOLDERS


def test_a_path_too_long_for_sockets_gets_a_symbolic_link(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    assert interpreter.short_path(Path("/tmp"), 72) == Path("/tmp")
    link = interpreter.short_path(long, 72)
    try:
        assert len(str(link)) + 72 <= interpreter.SOCKET_BYTES
        assert link.resolve() == long.resolve()
        assert interpreter.short_path(long, 72) == link
        assert interpreter.child_environment({"TMPDIR": str(long)})["VLLM_RPC_BASE_PATH"] == str(link)
    finally:
        link.unlink()


def test_a_user_without_a_name_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 1000680000")

    monkeypatch.setattr(interpreter.getpass, "getuser", unknown)
    assert interpreter.child_environment({})["USER"] == f"uid{os.getuid()}"
