#!/usr/bin/env bash
# From nothing to a trained agent on one machine: installs what is missing,
# builds, makes games, a teacher and a student, trains the student with all
# services as separate processes, and prints a table of what was learned.
# Run again at will: finished parts are kept, training starts anew.
#
#   deploy/up.sh [--name NAME] [--resume NAME] [--seed N] [--layout LAYOUT] [--prepare-only] [-- ATOD-UP-ARGUMENTS]
#     --name          name of the run (default embedded-1, -2, …)
#     --resume        go on with a run that was stopped, from its last checkpoint
#     --seed          seed of the training (default 0)
#     --layout        windowed (default), or growing: an episode is one sequence (docs/layouts.md)
#     --prepare-only  stop before training
#   ATOD_BIN   folder of programs that are built already: nothing is installed or built
#   ATOD_WORK  where games and models go (default data/embedded, data/embedded-growing)
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '\033[1m[up]\033[0m %s\n' "$*" >&2; }
bad() { echo "error: deploy/up.sh: $*" >&2; exit 2; }

name= resume= seed=0 layout=windowed prepare_only= extra=()
while (($#)); do
  case $1 in
    --name) name=${2:?--name needs a value}; shift 2 ;;
    --resume) name=${2:?--resume needs a value}; resume=1; shift 2 ;;
    --seed) seed=${2:?--seed needs a value}; shift 2 ;;
    --layout) layout=${2:?--layout needs a value}; shift 2 ;;
    --prepare-only) prepare_only=1; shift ;;
    --) shift; extra=("$@"); break ;;
    *) bad "unknown option $1, expected --name, --resume, --seed, --layout, --prepare-only or --" ;;
  esac
done
[[ $seed =~ ^[0-9]+$ ]] || bad "--seed: found $seed, expected a whole number"

[[ $layout == windowed || $layout == growing ]] || bad "--layout: found $layout, expected windowed or growing"

started=$SECONDS
if [[ ${ATOD_BIN:-} ]]; then
  PATH=$ATOD_BIN:$PATH
else
  deploy/setup.sh
  say "building (the first time takes some minutes on two cores)"
  mkdir -p build
  cmake --preset release >build/configure.log 2>&1 || { cat build/configure.log >&2; exit 1; }
  cmake --build build/release --target programs
  PATH=$PWD/build/release/bin:$PATH
  say "built, $((SECONDS - started)) s since the start"
fi

# What the growing layout changes: rows of demonstrations are episodes, and a
# context holds one.
default_work=data/embedded model=deploy/configs/embedded-model.json rows=32 demos=() play=()
if [[ $layout == growing ]]; then
  default_work+=-growing rows=8 demos=(--layout growing)
  play=(--set layout=growing --set model.max_context=768)
fi
work=${ATOD_WORK:-$default_work}
mkdir -p "$work"
if [[ $layout == growing ]]; then
  sed 's/"max_position_embeddings": 512/"max_position_embeddings": 1024/' "$model" >"$work/model.json"
  model=$work/model.json
fi
export OMP_WAIT_POLICY=passive

# once STEP COMMAND…: runs the command unless it, and all before it, ran with
# the same words.
chain= made=
once() {
  local stamp=$work/$1.done; shift
  chain+="$*"$'\n'
  if [[ -e $stamp && $(<"$stamp") == "${chain%$'\n'}" ]]; then return; fi
  rm -f "$stamp"
  made=1
  "$@"
  printf '%s' "${chain%$'\n'}" >"$stamp"
}

prepare_started=$SECONDS
say "games, demonstrations, tokenizer, teacher, student (kept in $work)"
once games atod games --out "$work/games" --seed 1 \
  --train 4000 --valid-seen 400 --valid-unseen 400
# The teacher forgets the heart of a task in a share of its demonstrations: good,
# not perfect. The student forgets in most, so that it acts in the right format
# and finds every needed action now and then.
once demos-teacher atod games demos --games "$work/games" --split train \
  --count 4000 --seed 14 --forget 0.40 --forget-clean 0.29 --forget-heat 0.29 \
  --forget-cool 0.27 --look-rows 2 --noise 0.12 "${demos[@]}" --out "$work/demos-teacher.jsonl"
once demos-student atod games demos --games "$work/games" --split train \
  --count 4000 --seed 12 --forget 0.64 --forget-pick 0.65 --forget-two 0.80 \
  --forget-look 0.75 --look-rows 4 --noise 0.12 "${demos[@]}" --out "$work/demos-student.jsonl"
once tokenizer atod train-tokenizer --data "$work/demos-teacher.jsonl" \
  --vocab-size 768 --out "$work/tokenizer"
once init-teacher atod init-model --config "$model" \
  --tokenizer "$work/tokenizer" --init unit --seed 71 --out "$work/teacher-init"
once init-student atod init-model --config "$model" \
  --tokenizer "$work/tokenizer" --init unit --seed 53 --out "$work/student-init"
sft=(--batch-rows "$rows" --lr 3e-3 --warmup 30 --schedule cosine --weight-decay 0.01
  --grad-clip 1 --beta2 0.95 --threads 0)
once teacher atod sft --model "$work/teacher-init" --data "$work/demos-teacher.jsonl" \
  --out "$work/teacher" --updates 900 --seed 71 "${sft[@]}"
once student atod sft --model "$work/student-init" --data "$work/demos-student.jsonl" \
  --out "$work/student" --updates 900 --seed 53 "${sft[@]}"
if [[ $made ]]; then echo $((SECONDS - prepare_started)) >"$work/seconds"; fi
say "prepared in $((SECONDS - prepare_started)) s"
if [[ $prepare_only ]]; then exit 0; fi

if [[ -z $name ]]; then
  n=1
  while [[ -e runs/embedded-$n ]]; do n=$((n + 1)); done
  name=embedded-$n
fi
run=runs/$name
if [[ $resume ]]; then
  [[ -e $run/metrics.jsonl ]] || bad "--resume: found no run in $run"
  extra+=(--resume)
elif [[ -e $run/metrics.jsonl ]]; then
  bad "--name: $run exists already, expected a new name (or --resume $name)"
fi

say "training run $name: metrics on http://127.0.0.1:9701/metrics, files in $run"
train_started=$SECONDS
atod up --config deploy/configs/embedded.yaml --set "name=$name" --set "seed=$seed" \
  --set "model.path=$work/student" --set "teachers.0.path=$work/teacher" \
  --set "env.data=$work/games" "${play[@]}" "${extra[@]}"
say "trained in $((SECONDS - train_started)) s"
echo "{\"cores\": $(nproc), \"prepare\": $(<"$work/seconds")}" >"$run/seconds.json"

say "evaluating on 300 held-out games of each split"
evals=$run/evals
mkdir -p "$evals" "$work/evals"
# Of policies and first models the same for every run: kept beside them.
held_out() { deploy/heldout.sh "$work/games" "$@" "${play[@]}"; }
for policy in random planner; do held_out "$work/evals/$policy" 0.4 --policy "$policy"; done
held_out "$work/evals/untrained" 0.4 --model "$work/student"
held_out "$work/evals/teacher" 0.4 --model "$work/teacher"
cp "$work"/evals/{random,planner,untrained,teacher}-valid_*.jsonl "$evals/"
held_out "$evals/trained-last-t1" 1 --model "$run/checkpoints/last/model"
for which in last best; do
  held_out "$evals/trained-$which" 0.4 --model "$run/checkpoints/$which/model"
done
atod games stats "$work/games" >"$run/games.txt"
atod report "$run" --markdown "$run/report.md"
say "all done in $((SECONDS - started)) s; report in $run/report.html, the table also in $run/report.md"
