#!/usr/bin/env bash
# Recipes x seeds of a table, each a run of its own from the same student at
# equal episodes; its last checkpoint plays 300 held-out games of two splits at
# T = 0.4 and T = 1; then one report over all. Can be stopped and started again:
# finished runs are kept, an unfinished one goes on from its last checkpoint.
#
#   experiments/run.sh TABLE.tsv [--out BASE] [--jobs N] [-- ATOD-UP-ARGUMENTS]
#     --out   writes BASE.html, BASE.md and BASE.svg (default runs/TABLE)
#     --jobs  runs at a time (default 2)
#   ATOD_BIN   folder of programs that are built already
#   ATOD_WORK  where games and models are (default data/embedded)
#   ATOD_PORT  first of 10 ports a job (default 7800)
#
# A line of the table, by tabs: name, seeds by comma, `--set` words by space.
# What is to be said about the result, TABLE.md, goes behind it.
# One line is printed for each finished run. Runs are runs/TABLE-NAME-SEED.
set -euo pipefail
cd "$(dirname "$0")/.."
bad() { echo "error: experiments/run.sh: $*" >&2; exit 2; }

table=${1:-} out= jobs=2 extra=()
[[ -f $table ]] || bad "TABLE: found ${table:-nothing}, expected a file"
shift
options=${*:+ $*}
while (($#)); do
  case $1 in
    --out) out=${2:?--out needs a value}; shift 2 ;;
    --jobs) jobs=${2:?--jobs needs a value}; shift 2 ;;
    --) shift; extra=("$@"); break ;;
    *) bad "unknown option $1, expected --out, --jobs or --" ;;
  esac
done
[[ $jobs =~ ^[1-9][0-9]*$ ]] || bad "--jobs: found $jobs, expected a number from 1"
base=$(basename "$table" .tsv)
out=${out:-runs/$base}
work=${ATOD_WORK:-data/embedded} port=${ATOD_PORT:-7800}
# Seed by seed, so that what is there after a stop compares.
names=() sets=() seeds=() most=0
while IFS=$'\t' read -r name list words; do
  [[ -z $name || $name == \#* ]] && continue
  [[ $list =~ ^[0-9]+(,[0-9]+)*$ ]] || bad "$table: seeds of $name: found '$list', expected numbers by comma"
  names+=("$name") seeds+=("$list") sets+=("$words")
  count=$(tr -cd , <<<"$list" | wc -c)
  ((count < most)) || most=$((count + 1))
done <"$table"
queue=()
for ((turn = 1; turn <= most; turn++)); do
  for i in "${!names[@]}"; do
    seed=$(cut -d, -f"$turn" <<<"${seeds[i]},")
    if [[ $seed && $(tr -cd , <<<"${seeds[i]}" | wc -c) -ge $((turn - 1)) ]]; then queue+=("$i $seed"); fi
  done
done

deploy/up.sh --prepare-only
atod=${ATOD_BIN:-build/release/bin}/atod
# Solved games of the teacher, for prefixes.
if grep -q '^[^#].*env.episodes=@WORK@/episodes.jsonl' "$table" && [[ ! -e $work/episodes.jsonl ]]; then
  OMP_WAIT_POLICY=passive "$atod" collect --model "$work/teacher" --games "$work/games" --split train --out "$work/episodes.jsonl"
fi

PATH=$(dirname "$(realpath "$atod")"):$PATH
held_out() {  # held_out OUT MODEL: also OUT-t1, at T = 1
  ATOD_THREADS=1 deploy/heldout.sh "$work/games" "$1" 0.4 --model "$2" >/dev/null
  ATOD_THREADS=1 deploy/heldout.sh "$work/games" "$1-t1" 1 --model "$2" >/dev/null
}
mkdir -p "$work/evals"
held_out "$work/evals/untrained" "$work/student"
held_out "$work/evals/teacher" "$work/teacher"
# Models that were made anew do not go with runs of those before.
models=$(cat "$work"/{student,teacher}/*.safetensors | sha256sum | cut -c1-32)

last() { grep -o "\"$1\":[0-9.e-]*" "$2/metrics.jsonl" | tail -n 1 | cut -d: -f2; }
percent() { awk -v x="${1:-nan}" 'BEGIN { printf "%.1f", 100 * x }'; }

one() {  # one INDEX SEED SLOT
  local i=$1 seed=$2 p=$((port + 10 * $3)) name=$base-${names[$1]}-$2 started=$SECONDS
  local run=runs/$name again=() words=()
  for word in ${sets[i]}; do words+=(--set "${word//@WORK@/$work}"); done
  if [[ -e $run/checkpoints/last ]]; then
    again=(--resume)
  else
    rm -rf "$run"
    mkdir -p "$run"
    echo "$models" >"$run/models.sha256"
  fi
  if ! "$atod" up --config deploy/configs/embedded.yaml "${again[@]}" --set "name=$name" --set "seed=$seed" \
    --set "model.path=$work/student" --set "teachers.0.path=$work/teacher" --set "env.data=$work/games" \
    --set threads.learner=1 --set "rpc.learner=127.0.0.1:$p" --set "rpc.teacher=127.0.0.1:$((p + 1))" \
    --set "rpc.envs=127.0.0.1:$((p + 2))" --set "metrics.learner_port=$((p + 3))" \
    --set "metrics.teacher_port=$((p + 4))" --set "metrics.envs_port=$((p + 5))" \
    --set "metrics.rollout_port=$((p + 6))" "${words[@]}" "${extra[@]}" >"runs/$name.log" 2>&1; then
    echo "$name: failed: $(grep '^error: ' "runs/$name.log" | tail -n 1) (runs/$name.log)"
    return 1
  fi
  held_out "$run/evals/trained-last" "$run/checkpoints/last/model"
  cp "$work"/evals/{untrained,teacher}-*.jsonl "$run/evals/"
  touch "$run/done"
  echo "$name: done in $((SECONDS - started)) s, step $(last step "$run"), success best $(percent "$(last val/success_rate_best "$run")")," \
    "last $(percent "$(last val/success_rate "$run")"), mean of last $(percent "$(last val/success_rate_mean_last "$run")")"
}

mkdir -p runs
declare -A slot_of=()
free=() failed=0
for ((s = 0; s < jobs; s++)); do free+=("$s"); done
reap() {
  local pid
  wait -n -p pid || failed=1
  free+=("${slot_of[$pid]}")
  unset "slot_of[$pid]"
}
for job in "${queue[@]}"; do
  read -r i seed <<<"$job"
  run=runs/$base-${names[i]}-$seed
  if [[ -e $run/checkpoints/last ]]; then
    of=$(cat "$run/models.sha256" 2>/dev/null || echo nothing)
    [[ $of == "$models" ]] ||
      bad "$run/models.sha256: found $of, expected $models: the run began from another student or teacher; move it away"
  fi
done
for job in "${queue[@]}"; do
  read -r i seed <<<"$job"
  if [[ -e runs/$base-${names[i]}-$seed/done ]]; then continue; fi
  ((${#free[@]})) || reap
  one "$i" "$seed" "${free[0]}" &
  slot_of[$!]=${free[0]}
  free=("${free[@]:1}")
done
while ((${#slot_of[@]})); do reap; done

finished=()
for i in "${!names[@]}"; do
  for seed in ${seeds[i]//,/ }; do
    run=runs/$base-${names[i]}-$seed
    if [[ -e $run/done ]]; then finished+=("$run"); fi
  done
done
((${#finished[@]})) || { echo "error: experiments/run.sh: no run finished" >&2; exit 1; }
"$atod" report --compare --out "$out.html" --markdown "$out.md" "${finished[@]}"
{
  printf '# %s: recipes side by side\n\nThe same student, teacher, number of episodes and games. Made by `%s`; [the whole report](%s.html).\n\n![learning curves](%s.svg)\n\n' \
    "$base" "experiments/run.sh $table$options" "$(basename "$out")" "$(basename "$out")"
  cat "$out.md"
  if [[ -e ${table%.tsv}.md ]]; then printf '\n'; cat "${table%.tsv}.md"; fi
} >"$out.tmp"
mv "$out.tmp" "$out.md"
exit "$failed"
