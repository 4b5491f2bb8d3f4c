"""The installer: quick when all is well, and a rebuild when the environment is not this folder's own.

Interpreters and environments are real; pip and uv are stand-ins that write down what they are asked and make
the few modules that the installer looks for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import REPOSITORY

BASE = os.path.realpath(sys.executable)
# `python3.11 -m venv` without the seconds that a real pip takes.
PYTHON = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
if [ "$1 $2" = "-m venv" ]; then
    "$BASE" -m venv --without-pip .venv || exit 1
    mkdir .venv/lib/python3.11/site-packages/pip
    cp "$STUBS/pip.py" .venv/lib/python3.11/site-packages/pip/__main__.py
    exit
fi
exec "$BASE" "$@"
"""
PIP = """
import os, pathlib, sys
with open(os.environ["CALLS"], "a", encoding="utf-8") as calls:
    print("pip", *sys.argv[1:], file=calls)
if any(argument.startswith("uv") for argument in sys.argv):
    uv = pathlib.Path(".venv/bin/uv")
    uv.write_text("#!/bin/sh\\nexec .venv/bin/python -I '%s/uv.py' \\"$@\\"\\n" % os.environ["STUBS"])
    uv.chmod(0o755)
"""
UV = """
import os, pathlib, sys, sysconfig
with open(os.environ["CALLS"], "a", encoding="utf-8") as calls:
    print("uv", *sys.argv[1:], file=calls)
if os.environ.get("FAIL") in sys.argv:
    sys.exit(1)
packages = pathlib.Path(sysconfig.get_paths()["purelib"])
for name in ("torch", "torchvision", "transformers"):
    (packages / f"{name}.py").write_text("class version: cuda = None")
if "--editable" in sys.argv:
    (packages / "llmi.pth").write_text(os.getcwd())
"""
OTHER = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$*" in *ensurepip*) exit 1 ;; esac
exit 1
"""


class Checkout:
    """A folder with the installer, and the commands that it ran."""

    def __init__(self, folder: Path, stubs: Path):
        self.folder, self.stubs = folder, stubs
        self.calls = stubs / "calls"

    def install(self, flavour: str = "cpu", **env: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHON"}
        path = f"{self.stubs / 'bin'}:/usr/bin:/bin"
        inherited |= {"PATH": path, "CALLS": str(self.calls), "STUBS": str(self.stubs), "BASE": BASE, **env}
        command = [str(self.folder / "ops/install.sh"), flavour]
        return subprocess.run(command, env=inherited, capture_output=True, text=True, timeout=100)

    def ran(self, words: str) -> bool:
        return words in self.calls.read_text(encoding="utf-8")


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder, stubs = tmp_path / "a checkout", tmp_path / "stubs"
    (folder / "ops").mkdir(parents=True)
    (folder / "locks").mkdir()
    (folder / "workers").mkdir()
    (folder / "workers/__init__.py").touch()
    for name in ("ops/install.sh", "pyproject.toml"):
        shutil.copy2(REPOSITORY / name, folder / name)
    for flavour in ("cpu", "gpu"):
        (folder / f"locks/{flavour}.txt").write_text("torch==2.13.0\n")
    program(stubs / "bin/python3.11", PYTHON)
    (stubs / "pip.py").write_text(PIP)
    (stubs / "uv.py").write_text(UV)
    return Checkout(folder, stubs)


@pytest.fixture
def installed(checkout: Checkout) -> Checkout:
    done = checkout.install()
    assert done.returncode == 0, done.stderr
    return checkout


def test_a_second_call_runs_no_installer(installed: Checkout) -> None:
    assert installed.ran("python3.11 -m venv .venv")
    again = installed.install()
    assert (again.returncode, again.stderr, installed.calls.read_text()) == (0, "", "")


def test_a_change_of_the_lock_is_installed_into_what_is_there(installed: Checkout) -> None:
    (installed.folder / "locks/cpu.txt").write_text("torch==2.13.0\nother==1\n")
    assert installed.install().returncode == 0
    assert installed.ran("uv pip install --no-deps --compile-bytecode -r locks/cpu.txt")
    assert not installed.ran("-m venv")


@pytest.mark.parametrize("how", ["copied", "moved", "linked"])
def test_an_environment_of_another_folder_is_made_again(installed: Checkout, how: str) -> None:
    other = installed.folder.parent / "elsewhere"
    if how == "copied":
        shutil.copytree(installed.folder, other, symlinks=True)
    elif how == "moved":
        installed.folder.rename(other)
    else:
        ignored = shutil.ignore_patterns(".venv")
        shutil.copytree(installed.folder, other, ignore=ignored)
        (other / ".venv").symlink_to(installed.folder / ".venv")
    moved = Checkout(other, installed.stubs)
    done = moved.install()
    assert done.returncode == 0, done.stderr
    assert "creating it again" in done.stderr
    assert moved.ran("-m venv")
    code = "import workers; print(workers.__path__[0])"
    shown = subprocess.run([other / ".venv/bin/python", "-I", "-c", code], capture_output=True, text=True)
    assert shown.stdout.strip() == str(other / "workers")
    if how != "moved":  # the one it came from is left as it was
        assert installed.install().stderr == ""


def test_an_environment_that_was_left_half_made_is_made_again(checkout: Checkout) -> None:
    assert checkout.install(FAIL="--editable").returncode != 0
    assert not list((checkout.folder / ".venv").glob("installed-*"))
    done = checkout.install()
    assert done.returncode == 0, done.stderr
    assert checkout.ran("-m venv")


@pytest.mark.parametrize("broken", ["bin/python3.11", "bin/python", "pyvenv.cfg", "bin"])
def test_an_environment_that_does_not_start_is_made_again(installed: Checkout, broken: str) -> None:
    part = installed.folder / ".venv" / broken
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    done = installed.install()
    assert done.returncode == 0, done.stderr
    assert installed.ran("-m venv")
    assert installed.install().stderr == ""


def test_an_environment_of_another_checkout_is_installed_from_this_one(installed: Checkout) -> None:
    elsewhere = installed.folder.parent / "old"
    (elsewhere / "workers").mkdir(parents=True)
    (elsewhere / "workers/__init__.py").touch()
    (installed.folder / ".venv/lib/python3.11/site-packages/llmi.pth").write_text(str(elsewhere))
    assert installed.install().returncode == 0
    assert installed.ran("--editable .")
    assert installed.install().stderr == ""


def test_the_other_flavour_takes_the_place_of_the_first(installed: Checkout) -> None:
    assert installed.install("gpu").returncode == 0
    assert installed.install("gpu").stderr == ""
    assert installed.install("cpu").returncode == 0
    assert installed.ran("-r locks/cpu.txt")


def test_settings_that_point_installers_elsewhere_are_ignored(installed: Checkout) -> None:
    hostile = installed.folder.parent / "hostile"
    program(hostile / "workers/__init__.py", "raise SystemExit('from PYTHONPATH')")
    again = installed.install(PYTHONPATH=str(hostile), PYTHONHOME="/nowhere", TMPDIR="/nowhere", HOME="/")
    assert (again.returncode, again.stderr) == (0, "")


def test_two_at_once_install_once(checkout: Checkout) -> None:
    checkout.calls.write_text("")
    path = f"{checkout.stubs / 'bin'}:/usr/bin:/bin"
    env = {"PATH": path, "CALLS": str(checkout.calls), "STUBS": str(checkout.stubs), "BASE": BASE}
    command = [str(checkout.folder / "ops/install.sh")]
    both = [subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [one.wait(100) for one in both] == [0, 0]
    assert checkout.calls.read_text().count("-m venv .venv") == 1


def other_python(checkout: Checkout, uv: str) -> None:
    """The machine's only Pythons are of another version; `uv` stands for the program on PATH."""
    for name in ("python3.11", "python3", "python"):
        program(checkout.stubs / "bin" / name, OTHER)
    program(checkout.stubs / "bin/uv", uv)


def test_a_machine_without_python_3_11_has_uv_fetch_one(checkout: Checkout) -> None:
    program(checkout.stubs / "managed/python3.11", PYTHON)
    where = checkout.stubs / "managed/python3.11"
    find = f'#!/bin/sh\necho "uv $*" >>"$CALLS"\n[ "$2" = find ] && echo "{where}"\nexit 0\n'
    other_python(checkout, find)
    done = checkout.install()
    assert done.returncode == 0, done.stderr
    assert checkout.ran("uv python install 3.11")
    assert checkout.ran("uv python find --managed-python 3.11")
    assert checkout.ran("python3.11 -m venv .venv")


def test_without_python_3_11_and_a_way_to_fetch_it_the_message_says_what_to_do(checkout: Checkout) -> None:
    other_python(checkout, "#!/bin/sh\nexit 1\n")
    done = checkout.install()
    assert done.returncode == 2
    assert "apt install python3.11 python3.11-venv" in done.stderr
    assert not (checkout.folder / ".venv").exists()


def test_a_named_python_that_does_not_fit_is_reported(checkout: Checkout) -> None:
    program(checkout.stubs / "bin/python3.13", OTHER)
    done = checkout.install(PYTHON="python3.13")
    assert done.returncode == 2
    assert "PYTHON=python3.13 is not one" in done.stderr
