#!/usr/bin/env bash
# atod, opd and grpo, three seeds each, from the same student at equal
# episodes; two runs at a time, one compute thread a role. Can be stopped and
# started again: finished runs are kept.
#
#   docs/results/recipes.sh [STEPS]     (default: as the embedded configuration)
#
# Writes docs/results/recipes.md and recipes.svg from runs/recipes-*.
set -euo pipefail
cd "$(dirname "$0")/../.."
steps=${1:-}
deploy/up.sh --prepare-only
atod=build/release/bin/atod
work=${ATOD_WORK:-data/embedded}

one() {  # one RECIPE SEED SLOT: a run on its own ports
  local recipe=$1 seed=$2 port=$((7800 + 20 * $3)) name=recipes-$1-$2
  if [[ -e runs/$name/done ]]; then return; fi
  rm -rf "runs/$name"
  "$atod" up --config deploy/configs/embedded.yaml --set "name=$name" \
    --set "seed=$seed" --set "algorithm.recipe=$recipe" ${steps:+--set "steps=$steps"} \
    --set "model.path=$work/student" --set "teachers.0.path=$work/teacher" \
    --set "env.data=$work/games" --set threads.learner=1 \
    --set "rpc.learner=127.0.0.1:$port" --set "rpc.teacher=127.0.0.1:$((port + 1))" \
    --set "rpc.envs=127.0.0.1:$((port + 2))" \
    --set "metrics.learner_port=$((port + 3))" --set "metrics.teacher_port=$((port + 4))" \
    --set "metrics.envs_port=$((port + 5))" --set "metrics.rollout_port=$((port + 6))" \
    >"runs/$name.log" 2>&1
  touch "runs/$name/done"
  echo "$name: done" >&2
}

mkdir -p runs
jobs=()
for seed in 0 1 2; do
  for recipe in atod opd grpo; do jobs+=("$recipe $seed"); done
done
half() {  # every second job, on the ports of slot $1
  for ((i = $1; i < ${#jobs[@]}; i += 2)); do
    # shellcheck disable=SC2086
    one ${jobs[i]} "$1"
  done
}
half 0 &
other=$!
half 1
wait "$other"
runs=()
for job in "${jobs[@]}"; do runs+=("runs/recipes-${job/ /-}"); done
deploy/report.py --compare docs/results/recipes "${runs[@]}"
