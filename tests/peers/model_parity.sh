#!/usr/bin/env bash
# Checks the model against Hugging Face transformers (model_parity.py) in a
# throw-away virtual environment. Downloads about 3 GB the first time.
#   usage: tests/peers/model_parity.sh [BUILD_DIR]
# PEER_VENV keeps the environment somewhere else than below /tmp.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/release}
venv=${PEER_VENV:-/tmp/atod-model-parity-venv}
if [[ ! -x $venv/bin/python ]]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q torch==2.11.0 transformers==5.23.0 numpy
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=passive
"$venv/bin/python" tests/peers/model_parity.py "$build/bin/atod" "$work"
