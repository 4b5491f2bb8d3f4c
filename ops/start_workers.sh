#!/usr/bin/env bash
# Start this machine's workers: ops/start_workers.sh --redis redis://HOST:6379/0 [--queues A,B] [--role gpu|cpu|all] [--dry-run]
# Finds GPUs, starts the workers, replaces dead ones in the background, returns when all are ready. -h: all options.
set -euo pipefail
llmi=$(dirname "$(readlink -f "$0")")/../.venv/bin/llmi
[ -x "$llmi" ] || { echo "start_workers: no .venv here; run ops/install.sh [cpu|gpu] first" >&2; exit 2; }
exec "$llmi" workers start "$@"
