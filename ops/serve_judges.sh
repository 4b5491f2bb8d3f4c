#!/usr/bin/env bash
# Serve the text and the image judge with vLLM on this machine, until Ctrl-C. Prints a line when both have given a verdict.
#   ops/serve_judges.sh [--only text|image] [--text-model M] [--tensor-parallel-size 8] [--max-images 20] [--device cpu] …  (--help)
set -euo pipefail
llmi=$(dirname "$(readlink -f "$0")")/../.venv/bin/llmi
[ -x "$llmi" ] || { echo "serve_judges: no .venv here; run ops/install.sh [cpu|gpu] first" >&2; exit 2; }
exec "$llmi" serve judges "$@"
