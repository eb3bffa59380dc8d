#!/usr/bin/env bash
# The held-out protocol: 300 games of each split, drawn with seed 7; all but the
# temperature as deploy/configs/embedded.yaml says.
#
#   deploy/heldout.sh GAMES OUT TEMPERATURE --model DIR | --policy NAME
#     writes OUT-valid_unseen.jsonl and OUT-valid_seen.jsonl, one line a game
#   ATOD_THREADS  threads that play (default: all cores)
# What is there already of the same weights, games and protocol is kept.
# Needs `atod` in PATH.
set -euo pipefail
games=${1:?GAMES: the folder of the games} out=${2:?OUT: where the lines go}
temperature=${3:?TEMPERATURE: a number}
shift 3
config=$(dirname "$0")/configs/embedded.yaml
splits=(valid_unseen valid_seen)

# What the result depends on. OUT.made holds it, written last.
made="$temperature $*"
if [[ ${1:-} == --model ]]; then made+=" $(cat "$2"/*.safetensors "$2"/*.json | sha256sum)"; fi
made+=" $(cat "$0" "$config" | sha256sum)"
made+=" $(cd "$games" && find -L "${splits[@]}" -type f | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum)"
if [[ -e $out.made && $(<"$out.made") == "$made" ]]; then exit 0; fi
rm -f "$out.made"
for split in "${splits[@]}"; do
  atod eval --config "$config" --games "$games" --split "$split" --count 300 --seed 7 \
    --temperature "$temperature" --threads "${ATOD_THREADS:-0}" \
    --label "$(basename "$out")" --out "$out-$split.jsonl" "$@"
done
printf '%s' "$made" >"$out.made"
