#!/usr/bin/env bash
# Stop this machine's workers: running jobs are finished, the rest is requeued. --now does not wait.
#   ops/stop_workers.sh --redis redis://HOST:6379/0 [--node NAME] [--now]
set -euo pipefail
llmi=$(dirname "$(readlink -f "$0")")/../.venv/bin/llmi
[ -x "$llmi" ] || { echo "stop_workers: no .venv here; run ops/install.sh [cpu|gpu] first" >&2; exit 2; }
exec "$llmi" workers stop "$@"
