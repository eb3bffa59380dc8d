#!/usr/bin/env bash
# The three walls between torch, gRPC, protobuf and the rest.
set -euo pipefail
cd "$(dirname "$0")/../.."
python3 tests/walls/walls.py --self-test
python3 tests/walls/walls.py .
