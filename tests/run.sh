#!/usr/bin/env bash
# Builds everything and runs all tests; installs what it needs first.
# Arguments go to ctest (tests/run.sh -R tokenizer).
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '\033[1m[tests]\033[0m %s\n' "$*" >&2; }

deploy/setup.sh --tests
say "configuring"
mkdir -p build
cmake --preset release >build/configure.log 2>&1 || { cat build/configure.log >&2; exit 1; }
say "building"
cmake --build build/release
say "testing"
exec ctest --test-dir build/release --output-on-failure -j "$(nproc)" "$@"
