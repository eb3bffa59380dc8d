#!/usr/bin/env bash
# Runs trials: small inputs on which ATOD once failed, and checks what comes
# out now. The inputs are with the compatibility data; a file here, of the same
# name, says what is right:
#
#   before: what came out once          after: what comes out now
#   test: the CTest tests that keep it
#   expect: extended regex that must match a line of the output (repeatable)
#   reject: extended regex that must match none (repeatable)
#
#   tests/trials/run.sh [--write] [NAME…]      no name: all that have a file here
#     --write  makes docs/results/trials.md; of all trials, and only if all are right
#   B     folder of the programs (default build/release/bin)
#   WORK  keeps what the trials write, NAME.out their output (default: a
#         temporary folder, which stays if a trial fails)
#   ATOD_COMPAT_DATA  compatibility data (default ../shared/data)
#
# relatives/KIND.tsv: what else of that kind was tried, a tab, what came out.
# As root each trial has a network namespace of its own, so that ports are free.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=tests/trials
cases=${ATOD_COMPAT_DATA:-../shared/data}/trials
bad() { echo "error: $here/run.sh: $*" >&2; exit 2; }

write= names=()
for arg in "$@"; do
  case $arg in
    --write) write=1 ;;
    -*) bad "unknown option $arg, expected --write or names of trials" ;;
    *) names+=("$arg") ;;
  esac
done
[[ -x $cases/run.sh ]] || bad "$cases: found no run.sh, expected the trials (ATOD_COMPAT_DATA)"
if ((${#names[@]} == 0)); then
  for file in "$here"/[0-9]*; do names+=("$(basename "$file")"); done
elif [[ $write ]]; then
  bad "--write: found names, expected none: the table is of all trials"
fi

values() { sed -n "s/^$2: *//p" "$here/$1"; }  # values TRIAL KEY
for name in "${names[@]}"; do
  [[ -f $here/$name ]] || bad "$here/$name: found nothing, expected what is right for this trial"
  [[ -f $cases/$name/cmd.sh ]] || bad "$cases/$name: found no cmd.sh, expected a trial"
  for key in before after test; do
    [[ $(values "$name" "$key") ]] || bad "$here/$name: found no '$key:', expected it"
  done
  [[ $(values "$name" expect)$(values "$name" reject) ]] ||
    bad "$here/$name: found neither 'expect:' nor 'reject:', expected one"
done

B=$(realpath "${B:-build/release/bin}")
keep=${WORK:-}
WORK=${WORK:-$(mktemp -d)}
export B WORK
apart=()
if [[ $(id -u) == 0 ]] && unshare -n true 2>/dev/null; then
  apart=(unshare -n bash -c 'ip link set lo up; exec "$@"' trial)
fi

failed=0
for name in "${names[@]}"; do
  out=$WORK/$name.out started=$SECONDS wrong=()
  mkdir -p "$WORK"
  # Without the trial's title, which tells the fault in words of its own. How
  # the trial itself ends is a part of what it prints, where that matters.
  "${apart[@]}" "$cases/run.sh" "$name" </dev/null 2>&1 |
    sed -e '1{/^===/d}' -e '2{/^#/d}' >"$out" || true
  [[ -s $out ]] || wrong+=("no output")
  while IFS= read -r regex; do
    grep -qE -- "$regex" "$out" || wrong+=("no line matches '$regex'")
  done < <(values "$name" expect)
  while IFS= read -r regex; do
    if line=$(grep -m1 -E -- "$regex" "$out"); then wrong+=("'$regex' matches: $line"); fi
  done < <(values "$name" reject)
  if ((${#wrong[@]})); then
    failed=1
    printf 'WRONG %s (%d s, output in %s)\n' "$name" $((SECONDS - started)) "$out"
    printf '      %s\n' "${wrong[@]}"
  else
    printf 'right %s (%d s)\n' "$name" $((SECONDS - started))
  fi
done

cell() { sed 's/|/\\|/g'; }
table() {
  echo '# Trials: what once went wrong'
  echo
  echo "Made by \`tests/trials/run.sh --write\` at commit $(git rev-parse --short=12 HEAD): each trial's input was run again and its"
  echo "output held against the expressions in \`tests/trials/NAME\`; all ${#names[@]} came out right."
  echo
  echo '| trial | before | after | test |'
  echo '|---|---|---|---|'
  for name in "${names[@]}"; do
    echo "| $name | $(values "$name" before | cell) | $(values "$name" after | cell) | $(values "$name" test | cell) |"
  done
  for file in $(ls "$here"/relatives/*.tsv 2>/dev/null | sort -V); do
    printf '\n## Relatives: %s\n\n| tried | what came out |\n|---|---|\n' "$(basename "$file" .tsv)"
    cell <"$file" | awk -F'\t' 'NF { print "| " $1 " | " $2 " |" }'
  done
  local missing=()
  for file in "$cases"/*/; do
    [[ -f $here/$(basename "$file") ]] || missing+=("$(basename "$file")")
  done
  if ((${#missing[@]})); then printf '\nTrials without an answer here: %s.\n' "${missing[*]}"; fi
}
if [[ $write ]]; then
  ((failed == 0)) || bad "--write: some trials came out wrong, expected all right"
  table >docs/results/trials.md
fi
if [[ -z $keep && $failed == 0 ]]; then rm -rf "$WORK"; fi
exit "$failed"
