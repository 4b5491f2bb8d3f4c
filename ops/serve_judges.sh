#!/usr/bin/env bash
# Serve the text and the image judge with vLLM on this machine, until Ctrl-C; says when both give verdicts.
#   ops/serve_judges.sh [--only text|image] [--text-model M] [--tensor-parallel 8] [--images 20] [--device cpu] …  (--help)
exec "$(dirname "$0")/../.venv/bin/llmi" serve judges "$@"
