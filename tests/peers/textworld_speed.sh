#!/usr/bin/env bash
# The household engine against Microsoft's TextWorld (PyPI, in a virtual
# environment of its own), on the same games in the same run: speed, and every
# observation of TextWorld's random walks replayed by ours.
#
#   tests/peers/textworld_speed.sh [BUILD_DIR] [PAGE.md]
#
# With PAGE.md it writes docs/results/household-engine.md. Exit status 77
# (skipped) when the package cannot be installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/release}
page=${2:-/dev/stdout}
data=${ATOD_COMPAT_DATA:-../shared/data}
venv=${ATOD_CACHE:-$HOME/.cache/atod}/venv-textworld
if [[ ! -e $venv/complete ]]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  if ! "$venv/bin/pip" --disable-pip-version-check -q install "textworld[pddl]==1.7.0"; then
    rm -rf "$venv"
    echo "SKIPPED: pip cannot install textworld here"; exit 77
  fi
  touch "$venv/complete"
fi
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir "$work/games" "$work/played"
"$build/bin/atod" games --out "$work/small" --seed 1 \
  --train 2 --valid-seen 0 --valid-unseen 0 > /dev/null
"$build/bin/atod" games --out "$work/full" --seed 1 --classes full \
  --train 2 --valid-seen 0 --valid-unseen 0 > /dev/null
for size in small full; do
  number=0
  while read -r game; do
    cp "$game" "$work/games/generated-$size-$((++number)).tw-pddl"
  done < <(find "$work/$size" -name '*.tw-pddl' | sort)
done
kitchen=$data/alfworld-golden/pick_heat_then_place_in_recep-Potato-None-SinkBasin-14.tw-pddl
[[ -e $kitchen ]] && cp "$kitchen" "$work/games/alfred-kitchen-14.tw-pddl"

rows=
for game in "$work"/games/*.tw-pddl; do
  theirs=$("$venv/bin/python" tests/peers/textworld_speed.py "$game" "$work/played" 50)
  ours=$(ATOD_BENCHMARK_GAME=$game "$build"/services/envs/alfworld/alfworld_benchmark \
    --benchmark_format=json --benchmark_min_time=0.3 2> /dev/null)
  rows+=$(python3 - "$(basename "$game" .tw-pddl)" "$theirs" "$ours" <<'PY'
import json, sys
name, theirs, ours = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
time = {b["name"]: b["real_time"] for b in ours["benchmarks"]}
load, reset, step = time["BM_LoadGame"], time["BM_Reset"] / 1e3, time["BM_Step"] / 1e6
print(f"| {name} | {theirs['load_ms']:.0f} | {load:.2f} | {theirs['reset_ms']:.0f} | "
      f"{reset:.3f} | {theirs['steps_per_second']:.1f} | {1 / step:,.0f} | "
      f"{1 / step / theirs['steps_per_second']:,.0f} |")
PY
)$'\n'
done
replay=$("$build/bin/atod" replay-env --golden "$work"/played/*.golden.json | tail -1)
cat > "$page" <<PAGE
# Household engine against TextWorld

Made by \`tests/peers/textworld_speed.sh BUILD_DIR docs/results/household-engine.md\`. One process, one thread each, on the
same games; wall time; TextWorld $("$venv/bin/python" -c 'from importlib.metadata import version as v; print(v("textworld"), "with fast-downward-textworld", v("fast-downward-textworld"))'). Machine: $(nproc) cores,
$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1); load average at the end $(cut -d' ' -f1 /proc/loadavg).

| game | load, ms: TextWorld | ATOD | reset, ms: TextWorld | ATOD | steps/s: TextWorld | ATOD | ratio |
|---|---|---|---|---|---|---|---|
${rows}
A step takes a random admissible command and returns the feedback, the admissible commands and whether the goal is reached.
ATOD's figures are the engine's (\`alfworld_benchmark\`), without gRPC.

The walks that TextWorld played, feedback, admissible commands, score and end of every step, replayed by ATOD:
\`$replay\`.
PAGE
