#!/usr/bin/env bash
# Make or refresh .venv from the lock. Quick when nothing changed: a stamp holds the hash of what it was made from.
#   ops/install.sh [cpu|gpu]      PYTHON=python3.11 chooses the interpreter
set -euo pipefail
cd "$(dirname "$0")/.."
flavour=${1:-cpu}
lock=locks/$flavour.txt
[ -f "$lock" ] || { echo "install: no lock for '$flavour'; choose cpu or gpu" >&2; exit 2; }

python=${PYTHON:-python3.11}
command -v "$python" >/dev/null || python=python3
"$python" - <<'PY' || { echo "install: Python 3.11 is needed (the locks are resolved for it); name one with PYTHON=..." >&2; exit 2; }
import sys
sys.exit(sys.version_info[:2] != (3, 11))
PY

stamp=.venv/installed-$flavour
want=$(cat "$lock" pyproject.toml ops/install.sh | sha256sum | cut -d' ' -f1)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && exit 0

started=$SECONDS
say() { printf '[install %3ds] %s\n' $((SECONDS - started)) "$*" >&2; }

say "virtual environment in .venv ($("$python" --version))"
[ -x .venv/bin/python ] || "$python" -m venv .venv
say "uv, which installs the rest in parallel"
.venv/bin/python -m pip install -qq --disable-pip-version-check "uv>=0.9"
export VIRTUAL_ENV=$PWD/.venv
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
    # See that module: PyPI's torchvision beside a CPU torch. In the jail there is no module of ours to find.
    echo 'import importlib.util as u; u.find_spec("policy") and __import__("policy.torchvision_schema").torchvision_schema.install()' >"$hook"
else
    rm -f "$hook"
fi
.venv/bin/python -c 'import torch, torchvision, transformers' # a broken environment must fail here, not in the middle of a run
echo "$want" >"$stamp"
say "done"
