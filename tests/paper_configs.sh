#!/usr/bin/env bash
# The paper's configurations are what their table says, load, and plan their
# run.   tests/paper_configs.sh [BUILD]
set -euo pipefail
cd "$(dirname "$0")/.."
atod=$(realpath "${1:-build/release}")/bin/atod
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT

deploy/configs/paper/make.py --check
# A changed table is noticed.
cp -r deploy/configs/paper "$work/changed"
sed -i 's/^all\tsteps\t150/all\tsteps\t151/' "$work/changed/table.tsv"
if "$work/changed/make.py" --check >"$work/out"; then
  echo "make.py --check: passes a changed table, expected exit status 1"; exit 1
fi
printf 'all\tsteps\t1\trumour\t\n' >>"$work/changed/table.tsv"
if "$work/changed/make.py" --write 2>"$work/out" || [[ $? != 2 ]] ||
  ! grep -q 'found source rumour' "$work/out"; then
  echo "make.py: accepts an unknown source"; cat "$work/out"; exit 1
fi

# The shapes of the published students and of the 4B teacher.
model() {  # model NAME HIDDEN FEED_FORWARD LAYERS HEADS
  mkdir -p "$work/$1"
  cat >"$work/$1/config.json" <<JSON
{"model_type": "qwen3", "vocab_size": 151936, "hidden_size": $2,
 "intermediate_size": $3, "num_hidden_layers": $4, "num_attention_heads": $5,
 "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960,
 "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": true}
JSON
}
model 0.6b 1024 3072 28 16
model 1.7b 2048 6144 28 16
model 4b 2560 9728 36 32
mkdir -p "$work/games/train"
touch "$work/file"

files=0
for file in deploy/configs/paper/*.yaml; do
  "$atod" train --config "$file" --print-config >"$work/printed"
  grep -q "^name: $(basename "$file" .yaml) " "$work/printed"
  size=$(basename "$file" | cut -d- -f2)
  teacher=()
  if grep -q '^teachers:' "$file"; then teacher=(--set "teachers.0.path=$work/4b"); fi
  # There is a shape of each model, but no weights: the plan comes first.
  if "$atod" train --config "$file" --set "model.path=$work/$size" "${teacher[@]}" \
    --set "env.data=$work/games" --set "env.skills=$work/file" --set "env.episodes=$work/file" \
    --dry-run >"$work/plan" 2>"$work/error"; then
    echo "$file: a dry run with models that have no weights"; exit 1
  fi
  for line in '128 episodes a step' 'updates: one for 256 turns, at most 25 a step' 'tokens a step, at most' \
    '  learner: [0-9.]* GiB of the GPU' '  rollout: [0-9.]* GiB of the GPU'; do
    grep -q -- "$line" "$work/plan" || { echo "$file: no '$line' in the plan:"; cat "$work/plan"; exit 1; }
  done
  # The README names those that need more.
  most=74.5
  if [[ $file == */alfworld-4b-* ]]; then most=82; fi
  if [[ $file == */alfworld-4b-sdar.yaml ]]; then most=90; fi
  if [[ $file == */alfworld-4b-atod-growing.yaml ]]; then most=115; fi
  if ! awk -v most=$most '/^  (learner|rollout|teacher): / { if ($2 > most) exit 1 }' "$work/plan"; then
    echo "$file: more than $most GiB:"; cat "$work/plan"; exit 1
  fi
  files=$((files + 1))
done
# Without models the plan still comes, then one line that names the folder.
if "$atod" train --config "$file" --dry-run >"$work/plan" 2>"$work/error" ||
  ! grep -q 'episodes a step' "$work/plan" ||
  ! grep -q 'model.path: found no folder models/' "$work/error"; then
  echo "$file: dry run without models"; cat "$work/plan" "$work/error"; exit 1
fi
echo "paper configurations: $files files, ok"
