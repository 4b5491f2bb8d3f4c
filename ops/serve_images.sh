#!/usr/bin/env bash
# Serve an image model behind an OpenAI-compatible images endpoint, with vLLM-Omni or SGLang, until Ctrl-C.
#   ops/serve_images.sh Qwen/Qwen-Image [--server vllm-omni|sglang] [--port 8091] …  (--help)
exec "$(dirname "$0")/../.venv/bin/llmi" serve images "$@"
