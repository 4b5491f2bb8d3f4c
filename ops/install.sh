#!/usr/bin/env bash
# Create or update .venv from the lock. Quick when nothing changed: a stamp holds the hash of its inputs and the path of .venv.
#   ops/install.sh [cpu|gpu]      PYTHON=python3.11 chooses the interpreter
# An environment that was copied, moved, left incomplete or that does not start is created again.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$(pwd -P)
flavour=${1:-cpu}
lock=locks/$flavour.txt
fail() { echo "install: $*" >&2; exit 2; }
[ -f "$lock" ] || fail "no lock for '$flavour'; choose cpu or gpu"

# These would make Python or an installer read or write elsewhere.
unset PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV UV_SYSTEM_PYTHON UV_PYTHON UV_PROJECT_ENVIRONMENT
export PYTHONSAFEPATH=1 PYTHONUTF8=1
[ -d "${TMPDIR:-/tmp}" ] || unset TMPDIR
{ [ "${HOME:-/}" != / ] && [ -w "$HOME" ]; } || export UV_CACHE_DIR="${UV_CACHE_DIR:-$here/.cache/uv}" PIP_NO_CACHE_DIR=1

stamp=.venv/installed-$flavour
unfinished=.venv/installing # exists while the environment is incomplete
want="$(cat "$lock" pyproject.toml ops/install.sh | sha256sum | cut -d' ' -f1) $here"

# Whether the environment's Python starts, and finds the llmi of this folder.
starts() { .venv/bin/python -I -c 'import os, sys, workers; sys.exit(not os.path.samefile(os.path.dirname(workers.__path__[0]), sys.argv[1]))' "$here" 2>/dev/null; }
made() { [ ! -e "$unfinished" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && starts; }
made && exit 0

started=$SECONDS
say() { printf '[install %3ds] %s\n' $((SECONDS - started)) "$*" >&2; }

if command -v flock >/dev/null; then # one at a time; the lock is on this folder, and ends with this process
    exec 9<.
    flock -n 9 2>/dev/null || { say "waiting for another installation in this folder"; flock 9 || true; }
    made && exit 0
fi

# A Python 3.11 that can create an environment: the one named, one on PATH, or one that uv downloads.
fits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; }
managed() {
    local uv=.cache/uv-tool/bin/uv other
    if command -v uv >/dev/null; then
        uv=uv
    elif [ ! -x "$uv" ]; then
        for other in python3 python; do
            "$other" -m pip install -qq --disable-pip-version-check --target .cache/uv-tool "uv>=0.9" >&2 2>/dev/null && break
        done
        [ -x "$uv" ] || return 1
    fi
    say "no Python 3.11 here: downloading one with uv"
    "$uv" python install 3.11 >&2 && "$uv" python find --managed-python 3.11
}
found() {
    local one
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" || return 1
        echo "$PYTHON"
        return
    fi
    for one in python3.11 python3 python; do
        if fits "$one"; then echo "$one"; return; fi
    done
    managed
}
python=$(found) || fail "Python 3.11 with its venv module is needed (the locks are resolved for it), and $(
    if [ -n "${PYTHON:-}" ]; then echo "PYTHON=$PYTHON is not one"; else echo "there is none here, and uv could not download one"; fi
); install it (apt install python3.11 python3.11-venv, or uv python install 3.11), or name one with PYTHON=/path/to/python3.11"

# An environment of this folder that starts is updated; any other is created again.
sound() {
    [ ! -e "$unfinished" ] && .venv/bin/python -I -c 'import os, sys; sys.exit(sys.version_info[:2] != (3, 11) or not os.path.samefile(sys.prefix, sys.argv[1]))' "$here/.venv" 2>/dev/null || return 1
    local owner
    owner=$(cat .venv/installed-* 2>/dev/null | sed -n 's/^[0-9a-f]\{64\} //p')
    if [ -n "$owner" ]; then [ "$owner" = "$here" ]; else grep -qsF "$here/.venv" .venv/bin/activate; fi
}
if [ -e .venv ] || [ -L .venv ]; then
    if ! sound; then
        say "the environment in .venv was copied, moved or left incomplete: creating it again"
        if [ -L .venv ]; then rm .venv; else rm -rf .venv; fi
    fi
fi
say "virtual environment in .venv ($("$python" --version))"
mkdir -p .venv
touch "$unfinished"
rm -f .venv/installed-*
[ -x .venv/bin/python ] || "$python" -m venv .venv
say "uv, which installs the rest in parallel"
.venv/bin/python -m pip install -qq --disable-pip-version-check "uv>=0.9"
export VIRTUAL_ENV=$here/.venv
uv=.venv/bin/uv

torch=$(grep -E '^torch==' "$lock")
if [ "$flavour" = cpu ] && ! .venv/bin/python -c 'import torch, sys; sys.exit(torch.version.cuda is not None)' 2>/dev/null; then
    say "looking for a CPU build of $torch"
    # PyPI's torch is a CUDA build of gigabytes. Take a CPU build from where pip is configured to look, else from PyTorch.
    if .venv/bin/python -m pip install --disable-pip-version-check --dry-run --no-deps --quiet --report - "$torch" 2>/dev/null |
        grep -qE '(\+|%2B)cpu'; then
        say "$torch (CPU build of about 200 MB, from pip's configured source)"
        bar=(-qq) # no progress bar without a terminal
        if [ -t 2 ]; then bar=(--progress-bar on); fi
        .venv/bin/python -m pip install --disable-pip-version-check "${bar[@]}" --no-deps "$torch" >&2 # stdout is for JSON
    else
        say "$torch (CPU build of about 200 MB, from PyTorch)"
        $uv pip install --no-deps --torch-backend cpu "$torch"
    fi
fi
say "$(grep -cE '^[a-z0-9]' "$lock") locked packages, byte code compiled now so that runs start fast (about 4 GB on disk)"
if [ -t 2 ]; then
    $uv pip install --no-deps --compile-bytecode -r "$lock"
else # no progress bar without a terminal: keep the headings, not 250 names
    $uv pip install --no-deps --compile-bytecode -r "$lock" 2> >(grep -vE '^ [+~-] ' >&2)
fi
say "llmi itself, editable"
$uv pip install --quiet --no-deps --editable .
hook=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/llmi_torchvision.pth
if [ "$flavour" = cpu ]; then
    # See that module: PyPI's torchvision beside a CPU torch. The jail has no module of this project.
    echo 'import importlib.util as u; u.find_spec("policy") and __import__("policy.torchvision_schema").torchvision_schema.install()' >"$hook"
else
    rm -f "$hook"
fi
.venv/bin/python -c 'import torch, torchvision, transformers' # a broken environment must fail here, not in the middle of a run
starts || fail "the environment in .venv does not find llmi in $here; run this again, which creates it again"
echo "$want" >"$stamp"
rm -f "$unfinished"
say "done"
