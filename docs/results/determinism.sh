#!/usr/bin/env bash
# What deterministic: true costs: the loop of the embedded size, alternately
# with own kernels (A) and with torch's operations (B), from the same student.
#
#   docs/results/determinism.sh [STEPS [ROUNDS [LOG]]]    (10 steps, A B twice)
#
# LOG: what `tests/determinism.sh BUILD_DIR` printed, to be put on the page.
#
# Games and models are smaller to make than those of deploy/up.sh (fewer games,
# fewer updates of fine-tuning); architecture, vocabulary size, prompts and the
# loop's settings are those of deploy/configs/embedded.yaml. Writes
# docs/results/determinism.md. ATOD_BIN: folder of the programs
# (build/release/bin); ATOD_PORT (22100): first of the ports.
set -euo pipefail
cd "$(dirname "$0")/../.."
steps=${1:-10} rounds=${2:-2} log=${3:-}
atod=${ATOD_BIN:-build/release/bin}/atod
port=${ATOD_PORT:-22100}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

{
  "$atod" games --out "$work/games" --seed 1 --train 400 --valid-seen 10 --valid-unseen 1
  "$atod" games demos --games "$work/games" --split train --count 1500 --seed 11 \
    --forget 0.35 --noise 0.12 --out "$work/demos.jsonl"
  "$atod" train-tokenizer --data "$work/demos.jsonl" --vocab-size 768 --out "$work/tokenizer"
  seed=0
  for name in teacher student; do
    seed=$((seed + 1))
    "$atod" init-model --config deploy/configs/embedded-model.json --tokenizer "$work/tokenizer" \
      --init unit --seed $seed --out "$work/$name-init"
    "$atod" sft --model "$work/$name-init" --data "$work/demos.jsonl" --out "$work/$name" \
      --updates $((500 - 200 * (seed - 1))) --batch-rows 32 --lr 3e-3 --seed $seed
  done
} >"$work/prepare.log" 2>&1 || { tail -5 "$work/prepare.log" >&2; exit 1; }

for ((round = 1; round <= rounds; ++round)); do
  for mode in true false; do
    name=$mode-$round
    TIMEFORMAT='%U %S'
    { time "$atod" up --config deploy/configs/embedded.yaml --set "name=$name" \
      --set "runs_dir=$work/runs" --set "steps=$steps" --set "deterministic=$mode" \
      --set "model.path=$work/student" --set "teachers.0.path=$work/teacher" \
      --set "env.data=$work/games" --set eval.every=0 \
      --set "rpc.learner=127.0.0.1:$port" --set "rpc.teacher=127.0.0.1:$((port + 1))" \
      --set "rpc.envs=127.0.0.1:$((port + 2))" --set metrics.learner_port=0 \
      --set metrics.teacher_port=0 --set metrics.envs_port=0 --set metrics.rollout_port=0 \
      >"$work/$name.log" 2>&1; } 2>"$work/$name.cpu" ||
      { tail -20 "$work/$name.log" >&2; exit 1; }
    echo "deterministic=$mode, round $round: done" >&2
  done
done

python3 - "$work" "$rounds" "$steps" "$log" >docs/results/determinism.md <<'PY'
import json, os, platform, re, statistics, sys

work, rounds, steps, log = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]


def lines(mode, round):
    path = f"{work}/runs/{mode}-{round}/timings.jsonl"
    # The first step waits for services to start.
    return [json.loads(line) for line in open(path)][1:]


def column(records, key):
    return statistics.median(r[key] for r in records if key in r)


def cpu_tokens(mode, round):
    """Trained tokens a CPU second of all processes: less disturbed by what else runs on the machine."""
    cpu = sum(map(float, open(f"{work}/{mode}-{round}.cpu").read().split()))
    return sum(t["throughput/tokens_per_second"] * t["timing/step_seconds"]
               for t in map(json.loads, open(f"{work}/runs/{mode}-{round}/timings.jsonl"))) / cpu


parts = ["timing/rollout_seconds", "timing/old_logprob_seconds", "timing/update_seconds",
         "timing/step_seconds", "throughput/tokens_per_second"]
cpu = next((re.sub(r".*: ", "", line.strip()) for line in open("/proc/cpuinfo") if line.startswith("model name")),
           platform.processor())
print(f"""# What deterministic: true costs

`docs/results/determinism.sh {steps} {rounds}` on {os.cpu_count()} cores of {cpu}: the embedded loop, {steps} steps a run, runs
alternating, medians over the steps of a run without its first. Load average at the end: {os.getloadavg()[1]:.1f} (the loop itself keeps about two busy).

| deterministic | round | rollout s | old log-probs s | updates s | step s | tokens/s | tokens/CPU s |
|---|---|---|---|---|---|---|---|""")
speed = {"true": [], "false": []}
cpu_speed = {"true": [], "false": []}
for round in range(1, rounds + 1):
    for mode in ("true", "false"):
        records = lines(mode, round)
        values = [column(records, p) for p in parts]
        speed[mode].append(values[-1])
        cpu_speed[mode].append(cpu_tokens(mode, round))
        print(f"| {mode} | {round} | " + " | ".join(f"{v:.3f}" for v in values[:-1]) +
              f" | {values[-1]:.0f} | {cpu_speed[mode][-1]:.0f} |")
ratios = [a / b for a, b in zip(speed["true"], speed["false"])]
mean = statistics.geometric_mean(ratios)
cpu_ratio = statistics.geometric_mean(a / b for a, b in zip(cpu_speed["true"], cpu_speed["false"]))
print(f"""
Speed of the deterministic loop relative to the free one in tokens/s, by rounds: {", ".join(f"{r:.2f}" for r in ratios)}; mean
**{mean:.2f}** (wanted: at least 0.70); in tokens a CPU second {cpu_ratio:.2f}. """ + ("Above 1: for models of this size the guarantee costs nothing, because the own kernels avoid the per-operation cost of torch."
                    if mean > 1 else "Below 1: that is the price of the guarantee."))
if log:
    print("""
## What it keeps

`tests/determinism.sh build/release`

    """ + open(log).read().strip().replace("\n", "\n    "))
PY
grep '^Speed' -A1 docs/results/determinism.md
