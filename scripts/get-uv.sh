#!/usr/bin/env bash
# Puts uv under .uv/ by pip, in a virtual environment of its own so that the system's Python stays as it is.
set -euo pipefail
if ! python3 -m venv .uv 2>/dev/null; then
  rm -rf .uv
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
    python3 -m venv .uv
  else
    echo 'uv is missing and python3 has no venv; run: sudo apt-get install -y python3-venv' >&2
    exit 1
  fi
fi
.uv/bin/python -m pip install --quiet --disable-pip-version-check uv
