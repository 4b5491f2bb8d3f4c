#!/usr/bin/env bash
# Serve an image model behind an OpenAI-compatible images endpoint, with vLLM-Omni or SGLang, until Ctrl-C.
#   ops/serve_images.sh Qwen/Qwen-Image [--server vllm-omni|sglang] [--port 8091] …  (--help)
set -euo pipefail
llmi=$(dirname "$(readlink -f "$0")")/../.venv/bin/llmi
[ -x "$llmi" ] || { echo "serve_images: no .venv here; run ops/install.sh [cpu|gpu] first" >&2; exit 2; }
exec "$llmi" serve images "$@"
