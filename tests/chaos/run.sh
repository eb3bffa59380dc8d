#!/usr/bin/env bash
# Kills processes of small runs with SIGKILL and compares what is left with an
# unbroken run: final weights, digests of the ledger and metrics.jsonl must have
# the same bytes, and the ledger must add up.
#
#   tests/chaos/run.sh                     every labelled point (common/base/kill_point.h), once each
#   tests/chaos/run.sh --points A,B        these points only
#   tests/chaos/run.sh --services          each service once, all in one run (the CTest `chaos`)
#   tests/chaos/run.sh --random N          N runs, services killed at random times
#   … --write                              the result goes into docs/results/chaos.md, too
#   … --build DIR                          programs of this build (default build/release)
set -euo pipefail
exec python3 "$(dirname "$0")/chaos.py" "$@"
