#!/usr/bin/env bash
# TensorBoard's own reader against ours: records a run with a resume, reads the
# event files with the Python package, and compares every value with
# metrics.jsonl and every time with timings.jsonl.
#
#   tests/peers/tensorboard.sh [BUILD_DIR]
# Exit status 77 (skipped) when the package cannot be installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/release}
venv=${ATOD_CACHE:-$HOME/.cache/atod}/venv-tensorboard
if [[ ! -e $venv/complete ]]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  if ! "$venv/bin/pip" install -q --disable-pip-version-check tensorboard==2.20.0 'setuptools<81'; then
    rm -rf "$venv"
    echo "SKIPPED: pip cannot install tensorboard here"; exit 77
  fi
  touch "$venv/complete"
fi
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
TEST_TMPDIR=$work ATOD_KEEP_TEST_FILES=1 "$build/common/metrics/metrics_test" \
  --gtest_filter='StepRecorderTest.AResumeDropsLaterSteps*' >"$work/log"
"$venv/bin/python" - "$work"/metrics.* 2>"$work/errors" <<'PYTHON' || { cat "$work/errors" >&2; exit 1; }
import json, pathlib, struct, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = pathlib.Path(sys.argv[1])
events = EventAccumulator(str(run / "tb"), purge_orphaned_data=False)
events.Reload()
lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
times = {t["step"]: t["time"] for t in map(json.loads, (run / "timings.jsonl").open())}
tags = {tag for line in lines for tag in line} - {"step"}
assert set(events.Tags()["scalars"]) == tags, events.Tags()
values = 0
for tag in tags:
    read = [(e.step, e.wall_time, e.value) for e in events.Scalars(tag)]
    written = [(l["step"], times[l["step"]], struct.unpack("f", struct.pack("f", l[tag]))[0]) for l in lines if tag in l]
    assert read == written, (tag, read, written)
    values += len(read)
print(f"tensorboard: {len(tags)} tags, {values} values, 0 differences")
PYTHON
