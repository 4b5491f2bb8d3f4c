#!/usr/bin/env bash
# Check what only a machine with GPUs can run: images, attention, one GRPO step, weights over NCCL. Needs no network.
#   ops/gpu_check.sh      one line per section: ok, failed, or not run and why; exit code 1 when one failed
set -euo pipefail
python=$(dirname "$(readlink -f "$0")")/../.venv/bin/python
[ -x "$python" ] || { echo "gpu_check: no .venv here; run ops/install.sh gpu first" >&2; exit 2; }
exec "$python" -P -m llmi.gpu_check "$@"
