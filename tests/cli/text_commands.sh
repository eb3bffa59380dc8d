#!/usr/bin/env bash
# The fixed formats of atod tokenize, chat-template, prompt, train-tokenizer
# and verify-model, and their exit statuses.   tests/cli/text_commands.sh [BUILD]
set -euo pipefail
cd "$(dirname "$0")/../.."
atod=${1:-build/release}/bin/atod
model=common/tokenizer/testdata/gpt2
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
fail() { echo "$1"; exit 1; }
same() { [[ $2 == "$3" ]] || fail "$1: found $2, expected $3"; }
# What a command that must fail says, and that it says it in one line.
refused() {
  local status=0
  "${@:2}" >"$work/out" 2>"$work/error" || status=$?
  same "status of ${*:2}" "$status" "$1"
  same "lines of ${*:2}" "$(wc -l <"$work/error")" 1
  grep -q '^error: ' "$work/error" || fail "no error: of ${*:2}"
}

printf '"a b"\n"caf\\u00e9<|im_end|>\\n"\n""\n' >"$work/texts"
"$atod" tokenize --model $model <"$work/texts" >"$work/ids"
same 'lines of ids' "$(grep -c '^\[[0-9,]*\]$' "$work/ids")" 3
"$atod" tokenize --model $model --decode <"$work/ids" >"$work/back"
python3 - "$work/texts" "$work/back" <<'PYTHON'
import json, sys
texts, back = ([json.loads(line) for line in open(f)] for f in sys.argv[1:])
assert texts == back, (texts, back)
PYTHON
refused 2 "$atod" tokenize --model $model < <(echo '{"no": "string"}')
grep -q '^error: stdin:1: text: ' "$work/error" || fail 'tokenize: no field'
refused 2 "$atod" tokenize --model "$work/none" </dev/null

same chat "$("$atod" chat-template --model $model --no-thinking \
  <<<'[{"role": "user", "content": "hi"}]')" \
  '"<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"'
refused 2 "$atod" chat-template --model $model \
  < <(echo '[{"role": "tool", "content": "x"}]')

cat >"$work/turns.jsonl" <<'JSON'
{"task": "t", "step": 0, "history": [], "observation": "o0", "admissible": ["a", "help"]}
{"task": "t", "step": 1, "history": [{"observation": "o0", "action": "a"}], "observation": "o1", "admissible": ["b"]}
{"task": "t", "step": 2, "history": [{"observation": "o0", "action": "a"}], "observation": "o1", "admissible": ["b"]}
JSON
"$atod" prompt --env alfworld --input "$work/turns.jsonl" >"$work/prompts"
python3 - "$work/prompts" <<'PYTHON'
import json, sys
first, second, again = (json.loads(line)["prompt"] for line in open(sys.argv[1]))
assert "You are now at step 1 and" in first and "[['a']]" in first, first
assert "already taken 1 step(s)" in second, second
assert "[Observation 1: 'o0', Action 1: 'a']" in second, second
assert second == again  # the number of the current step says the same
PYTHON
refused 2 "$atod" prompt --env alfworld --input "$work/ids"
refused 2 "$atod" prompt --env webshop --prompt-set compact \
  --input "$work/turns.jsonl"

for i in 1 2; do
  "$atod" train-tokenizer --data "$work/demos.jsonl" --vocab-size 300 \
    --out "$work/trained$i" >/dev/null 2>&1 && fail 'trained on nothing'
  printf '{"prompt": "take apple 1", "response": " take apple 1"}\n%.0s' {1..9} \
    >"$work/demos.jsonl"
  "$atod" train-tokenizer --data "$work/demos.jsonl" --vocab-size 300 \
    --out "$work/trained$i" >/dev/null
  cmp "$work"/trained{1,$i}/tokenizer.json
  rm "$work/demos.jsonl"
done
# Rows of whole episodes hold the same.
printf '{"turns": [{"prompt": "take apple 1", "response": " take apple 1"}]}\n%.0s' {1..9} \
  >"$work/demos.jsonl"
"$atod" train-tokenizer --data "$work/demos.jsonl" --vocab-size 300 --out "$work/trained3" >/dev/null
cmp "$work"/trained{1,3}/tokenizer.json
same 'a response' "$("$atod" tokenize --model "$work/trained1" \
  <<<'" take apple 1<|im_end|>"' | tr -cd ,)" ,,,

status=0
"$atod" verify-model "$work" >"$work/report" || status=$?
same 'status of verify-model' $status 1
grep -q '^fault: .*config.json' "$work/report" || fail 'verify-model: no fault'
refused 2 "$atod" verify-model "$work/none"
echo 'text commands: ok'
