#!/usr/bin/env bash
# The same seed with other numbers of rollout workers, environment servers,
# slots and threads, as real processes, and with an environment server killed in
# the middle: every stored trajectory (tokens, log-probs of student and
# teacher), every line of metrics.jsonl and the last weights must be equal to
# the bit. Then trajectories of the run are replayed, and those of a run with
# `deterministic: false`, where replay must say so.
#
#   tests/determinism.sh BUILD_DIR            at least 200,000 compared tokens
#   tests/determinism.sh BUILD_DIR --small    less than a minute
#
# ATOD_PORT (22000): first of the ports it uses.
set -euo pipefail
cd "$(dirname "$0")/.."
atod=$1/bin/atod
port=${ATOD_PORT:-22000}
if [[ ${2:-} == --small ]]; then
  steps=2 tasks=4 group=4 panel=8 updates=60 games=40 random=20 wanted=2000
else
  steps=20 tasks=16 group=8 panel=60 updates=250 games=200 random=50 wanted=200000
fi
work=$(mktemp -d)
# The services die with their `atod up`.
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT
say() { printf '%s\n' "$*"; }
die() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

say "games, tokenizer, teacher, student"
cat >"$work/model.json" <<'JSON'
{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64,
 "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
 "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 512,
 "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true}
JSON
{
  "$atod" games --out "$work/games" --seed 5 --train "$games" --valid-seen "$panel" --valid-unseen 1
  "$atod" games demos --games "$work/games" --split train --count "$((3 * games))" --seed 1 \
    --forget 0.4 --noise 0.12 --out "$work/demos.jsonl"
  "$atod" train-tokenizer --data "$work/demos.jsonl" --vocab-size 600 --out "$work/tokenizer"
  seed=0
  for name in teacher student; do
    seed=$((seed + 1))
    "$atod" init-model --config "$work/model.json" --tokenizer "$work/tokenizer" --init unit \
      --seed $seed --out "$work/$name-init"
    "$atod" sft --model "$work/$name-init" --data "$work/demos.jsonl" --out "$work/$name" \
      --updates "$updates" --batch-rows 16 --lr 3e-3 --warmup 5 --seed $seed --threads 1
  done
} >"$work/prepare.log" 2>&1 || { tail -5 "$work/prepare.log" >&2; die "preparation"; }

play() {  # play NAME ENV-SERVERS SETTINGS…: a run of its own
  local name=$1 servers=$2 envs="" args=() i
  shift 2
  for ((i = 0; i < servers; ++i)); do envs+=,127.0.0.1:$((port + 10 + i)); done
  for i in "$@"; do args+=(--set "$i"); done
  say "run $name: $servers environment servers, $*"
  "$atod" up --config deploy/configs/embedded.yaml --set "name=$name" \
    --set "runs_dir=$work/runs" --set seed=3 --set "steps=$steps" \
    --set "model.path=$work/student" --set "teachers.0.path=$work/teacher" \
    --set "env.data=$work/games" --set "rpc.envs=${envs#,}" \
    --set "rpc.learner=127.0.0.1:$port" --set "rpc.teacher=127.0.0.1:$((port + 1))" \
    --set metrics.learner_port=0 --set metrics.teacher_port=0 \
    --set metrics.envs_port=0 --set metrics.rollout_port=0 \
    --set "algorithm.tasks_per_step=$tasks" --set "algorithm.group_size=$group" \
    --set optimizer.updates_per_step=2 --set "eval.panel_size=$panel" \
    --set eval.every=5 --set checkpoint.keep_weights=true "${args[@]}" \
    >"$work/$name.log" 2>&1 &
  local up=$!
  if [[ ${kill_envs:-} ]]; then
    until [[ -s $work/runs/$name/metrics.jsonl ]]; do
      kill -0 $up 2>/dev/null || break
      sleep 0.02
    done
    local victim
    victim=$(pgrep -P $up -o atod-envs) && kill -KILL "$victim" ||
      die "no environment server to kill"
    say "run $name: an environment server was killed"
  fi
  wait $up || { tail -20 "$work/$name.log" >&2; die "run $name"; }
}

play one 1 rollout.workers=1 rollout.slots=64 threads.learner=1 threads.rollout=1 threads.teacher=1
kill_envs=yes play many 2 rollout.workers=3 rollout.slots=16 threads.learner=2 threads.rollout=1 threads.teacher=2
others=(many)
if [[ ${2:-} != --small ]]; then
  play narrow 2 rollout.workers=1 rollout.slots=5 threads.learner=3 threads.rollout=2 threads.teacher=1
  others+=(narrow)
fi
tokens=0
for other in "${others[@]}"; do
  last=$("$atod" compare "$work/runs/one" "$work/runs/$other" | tail -1) || { say "$last"; die "one and $other differ"; }
  say "one and $other: $last"
  [[ $last =~ ,\ ([0-9]+)\ sampled\ tokens ]] || die "no count in: $last"
  tokens=$((tokens + BASH_REMATCH[1]))
  cmp "$work/runs/one/metrics.jsonl" "$work/runs/$other/metrics.jsonl" || die "metrics.jsonl of one and $other differ"
  say "one and $other: metrics.jsonl equal to the byte"
done
# That the workers shared the work.
played=$("$atod" trajectories list "$work/runs/many" | awk '{print $NF}' | sort -u | wc -l)
((played == 3)) || die "found trajectories of $played workers in run many, expected 3"
say "compared $tokens sampled tokens"
((tokens >= wanted)) || die "found $tokens tokens, expected at least $wanted"

# Step 2 played with version 1, which is in no checkpoint.
mv "$work/runs/many/weights" "$work/runs/many/away"
found=$("$atod" replay "$work/runs/many" 2/0/0 2>&1) && code=0 || code=$?
[[ $code == 2 && $found == *checkpoint.keep_weights* ]] ||
  die "replay without the weights: found status $code and: $found"
mv "$work/runs/many/away" "$work/runs/many/weights"
last=$("$atod" replay "$work/runs/many" --random "$random" --seed 1 | tail -1) || true
say "$last"
[[ $last == "replay: $random of $random identical" ]] || die "replay of run many"

play free 1 deterministic=false steps=2
out=$("$atod" replay "$work/runs/free" --random "$random" --seed 1) && code=0 || code=$?
say "$(head -1 <<<"$out")"
say "$(grep -v ': identical$' <<<"$out" | sed -n 2p)"
say "$(tail -1 <<<"$out")"
grep -q 'deterministic: false' <<<"$out" || die "replay does not say that the run was free"
((code == 1)) || die "replay of the free run: found exit status $code, expected 1 (differences)"
say "ok"
