#!/usr/bin/env bash
# Resolve pyproject.toml into locks/cpu.txt and locks/gpu.txt. Names and versions only: no index, no host.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
common=(pyproject.toml --python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links --no-annotate --quiet --upgrade)
links=()
for place in ${PIP_FIND_LINKS:-}; do links+=(--find-links "$place"); done
$uv pip compile "${common[@]}" "${links[@]}" --extra cpu --group dev --output-file locks/cpu.txt
$uv pip compile "${common[@]}" --extra gpu --group dev --output-file locks/gpu.txt
sed -i 's/^\(torch==[0-9.]*\)+cpu$/\1/' locks/cpu.txt # the installer decides where a CPU build comes from
wc -l locks/*.txt
