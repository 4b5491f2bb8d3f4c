#!/usr/bin/env bash
# Join this machine to the queues: ops/start_workers.sh --redis redis://HOST:6379/0 [--queues A,B] [--role gpu|cpu|all] [--dry-run]
# Finds GPUs, starts and mends the workers in the background, returns when all are ready. -h lists every option.
set -euo pipefail
llmi=$(dirname "$(readlink -f "$0")")/../.venv/bin/llmi
[ -x "$llmi" ] || { echo "start_workers: no .venv here; run ops/install.sh [cpu|gpu] first" >&2; exit 2; }
exec "$llmi" workers start "$@"
