#!/usr/bin/env bash
# Broken files and wrong flags: each is refused with exit status 2 and one line
# `error: …`.   tests/cli/bad_input.sh [BUILD]
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
atod=$(realpath "${1:-build/release}")/bin/atod
tokenizer=$PWD/common/tokenizer/testdata/gpt2 goldens=$PWD/tests/goldens
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work"
cases=0
# refused TEXT COMMAND…: the line holds TEXT.
refused() {
  local status=0
  timeout 60 "${@:2}" >out 2>error </dev/null || status=$?
  if [[ $status != 2 || $(wc -l <error) != 1 ]] || ! grep -q '^error: ' error ||
    ! grep -qF -- "$1" error; then
    echo "${*:2}: status $status, expected 2 and: $1"; cat error; exit 1
  fi
  cases=$((cases + 1))
}

# Configurations.
yaml() {
  printf '%b' "$2" >c.yaml
  refused "$1" "$atod" up --config c.yaml --dry-run
}
yaml 'c.yaml:1: found broken YAML' 'steps: ['
yaml 'c.yaml:1: found broken YAML' '"unclosed'
yaml 'c.yaml:2: found a tab' 'algorithm:\n\trecipe: x'
yaml 'c.yaml:2: steps: found the key again' 'steps: 3\nsteps: 4'
yaml 'c.yaml:2: found a second YAML document' 'steps: 3\n---\nsteps: 4'
yaml 'c.yaml:1: found a list' '- a'
yaml 'c.yaml:2: stepz: found an unknown key, expected steps' 'seed: 1\nstepz: 3'
yaml 'c.yaml:1: steps: found "-1"' 'steps: -1'
yaml 'c.yaml:1: seed: found "99999999999999999999"' 'seed: 99999999999999999999'
yaml 'optimizer.lr: found ".nan"' 'optimizer: {lr: .nan}'
yaml 'algorithm.recipe: found "zzz"' 'algorithm: {recipe: zzz}'
yaml 'model.path: found nothing' ''
refused 'none.yaml' "$atod" up --config none.yaml --dry-run
refused '.: found a folder, expected a file' "$atod" up --config . --dry-run
refused '--set: foo: found an unknown key' "$atod" up --set foo=1 --dry-run
# Several files, in every command that reads one: the second one's mistake.
echo 'seed: 1' >c.yaml; echo 'steps: -1' >d.yaml
for command in 'up --dry-run' 'train --dry-run' 'eval --policy random' \
  'diagnose --model m --teacher m --out o' 'collect --model m --out o' \
  'advantages --step 1 --input c.yaml'; do
  # shellcheck disable=SC2086
  refused 'd.yaml:1: steps: found "-1"' "$atod" $command --config c.yaml \
    --config d.yaml
done

# Commands and flags.
refused "command: found 'upp', expected a command (nearest: up)" "$atod" upp
refused "(nearest: list)" "$atod" trajectories lst
refused "(nearest: stats)" "$atod" games stat x
refused 'subcommand is required' "$atod"
refused '--bogus' "$atod" up --bogus
refused '--model is required' "$atod" score

# Models.
cat >config.json <<'JSON'
{"model_type": "qwen3", "hidden_size": 32, "intermediate_size": 64,
 "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
 "head_dim": 16, "max_position_embeddings": 1024, "rms_norm_eps": 1e-6,
 "rope_theta": 1e4, "tie_word_embeddings": true}
JSON
"$atod" init-model --config config.json --tokenizer "$tokenizer" --out model >/dev/null
echo '{"token_ids": [1, 2, 3], "spans": [[1, 2]]}' >spans.jsonl
"$atod" score --model model --input spans.jsonl | grep -q '^{"logprobs":\[\['
broken() {  # broken TEXT PYTHON: after PYTHON changed bytes `b`, header `h`
  rm -rf broken; cp -r model broken
  python3 - "$2" <<'PYTHON'
import json, sys
path = "broken/model.safetensors"
b = open(path, "rb").read()
n = int.from_bytes(b[:8], "little")
h, data = json.loads(b[8:8 + n]), b[8 + n:]
scope = {"b": b, "h": h, "first": next(k for k in h if k != "__metadata__")}
exec(sys.argv[1], scope)
if scope["b"] is b:
    head = json.dumps(scope["h"]).encode()
    head += b" " * (-len(head) % 8)
    scope["b"] = len(head).to_bytes(8, "little") + head + data
open(path, "wb").write(scope["b"])
PYTHON
  refused "$1" "$atod" score --model broken --input spans.jsonl
  local status=0
  "$atod" verify-model broken >out || status=$?
  [[ $status == 1 ]] && grep -q '^fault: ' out || { cat out; exit 1; }
}
broken 'header size' 'b = b[:100]'
broken 'data_offsets' 'b = b[:-8]'
broken 'header size' 'b = (2**62).to_bytes(8, "little") + b[8:]'
broken 'safetensors' 'b = b""'
broken 'data_offsets' 'h[first]["shape"] = [1, 1]'
broken 'data_offsets' 'h[first]["data_offsets"] = [-4, 4]'
broken 'dtype' 'h[first]["dtype"] = "Q7"'
broken 'no such tensor' 'h["x"] = h.pop(first)'
rm -rf broken; cp -r model broken
for text in '{' '[]' '{"model": {"type": "BPE", "vocab": {"a": 5}, "merges": [["q"]]}}'; do
  echo "$text" >broken/tokenizer.json
  refused 'tokenizer.json' "$atod" tokenize --model broken
done
for text in '[]' '{' '{"model_type": "llama"}' "$(sed 's/32/-3/' config.json)"; do
  echo "$text" >broken/config.json
  refused 'config.json' "$atod" score --model broken --input spans.jsonl
done

# What a run would open.
read -r -a port < <(python3 - <<'PYTHON'
import socket
sockets = [socket.socket() for _ in range(2)]
for s in sockets: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))
PYTHON
)
"$atod" games --out games --seed 1 --train 2 --valid-seen 2 --valid-unseen 2 >/dev/null
cat >run.yaml <<YAML
model: {path: model, max_context: 1024}
sampling: {train: {max_tokens: 8}}
env: {data: games, prompt_set: compact}
eval: {panel_size: 2}
algorithm: {recipe: grpo}
rpc: {learner: "127.0.0.1:${port[0]}", envs: "127.0.0.1:${port[1]}"}
metrics: {learner_port: 0, envs_port: 0, rollout_port: 0}
YAML
"$atod" up --config run.yaml --dry-run >/dev/null
dry() {  # dry TEXT KEY=VALUE…: the run with these keys
  local sets=(); for set in "${@:2}"; do sets+=(--set "$set"); done
  refused "$1" "$atod" up --config run.yaml "${sets[@]}" --dry-run
}
dry '--set: model.path: found no folder Qwen/Qwen3-0.6B, expected the folder of a model; from the Hugging Face hub: hf download Qwen/Qwen3-0.6B' model.path=Qwen/Qwen3-0.6B
dry 'found no folder /x/y, expected the folder of a model; docs/models.md' model.path=/x/y
dry 'found a file, config.json' model.path=config.json
dry 'teachers.0.path: found nothing' teachers.0.name=t
mkdir -p empty; cp config.json empty
dry 'empty' model.path=empty
cp -r model teacher
python3 - <<'PYTHON'
import json
t = json.load(open("teacher/tokenizer.json"))
last = max(t["model"]["vocab"], key=t["model"]["vocab"].get)
t["model"]["vocab"][last + "x"] = t["model"]["vocab"].pop(last)
t["model"]["merges"] = t["model"]["merges"][:-1]
json.dump(t, open("teacher/tokenizer.json", "w"))
PYTHON
dry 'tokenizer' teachers.0.path=teacher algorithm.recipe=opd
dry 'env.data: found none' env.data=none
dry 'env.train_split: found trains, expected a folder of games in games' env.train_split=trains
dry 'eval.split: found x' eval.split=x
dry 'env.episodes: found nothing' algorithm.recipe=tcod algorithm.tcod_mode=b2f teachers.0.path=model
dry 'config.json:1: found' algorithm.recipe=tcod algorithm.tcod_mode=b2f teachers.0.path=model env.episodes=config.json
dry 'skills: found' algorithm.recipe=sdar teachers.0.path=model env.skills=config.json
dry '--set: eval.panel_size: found 9, expected at most 2, the games of split valid_seen' eval.panel_size=9
dry '--set: model.max_context: found 40, expected at least' model.max_context=40
dry '--set: name: found 201 characters, expected at most 200' "name=$(printf 'x%.0s' {1..201})"
dry 'runs_dir: found /proc (No such file or directory), expected where' runs_dir=/proc/none
dry "runs_dir: found $PWD/config.json (Not a directory), expected where" runs_dir=config.json
dry '(File name too long)' "runs_dir=$(printf 'x%.0s' {1..300})"
# The same when it is no dry run; nothing is left.
refused 'eval.panel_size: found 9' "$atod" up --config run.yaml --set eval.panel_size=9
refused 'model.max_context: found 40' "$atod" up --config run.yaml --set model.max_context=40
[[ ! -e runs ]]
# Where a run would go on.
start() { refused "$1" "$atod" up --config run.yaml --dry-run "${@:2}"; }
start 'nowhere: --resume: found nothing' --resume nowhere
start 'games: --resume: found an incomplete checkpoint' --resume games
start "--fork: found 'other', expected RUN@STEP" --fork other
start 'runs/other/checkpoints: --fork: found no checkpoint of step 3, expected a run that has checkpoints' --fork other@3
mkdir -p runs/run/checkpoints/step-3 runs/used runs/half
echo '{"step": 1}' >runs/used/metrics.jsonl
echo '{"run": "runs/other", "step": 3}' >runs/half/fork.json
echo '{"files": []}' >runs/run/checkpoints/step-3/MANIFEST.json
start 'step-3/MANIFEST.json: files: found []' --resume
start 'step-3/MANIFEST.json: files: found []' --fork run@3 --set name=new
start 'run/checkpoints: --fork: found no checkpoint of step 4, expected one of 3' --fork run@4 --set name=new
start 'runs/run: name: found a run (checkpoints), expected a new name'
start 'runs/used: name: found a run (metrics.jsonl), expected a new name' --set name=used
start 'runs/used/checkpoints: checkpoint: found none, and no ledger.db, but recorded steps' --set name=used --resume
start 'runs/half: checkpoint: found none, expected the copy of runs/other@3' --set name=half --resume
rm -r runs
# Addresses.
dry 'rpc.learner: found ""' rpc.learner=
dry 'rpc.learner: found " "' 'rpc.learner= '
dry 'rpc.learner: found "127.0.0.1:1,127.0.0.1:2"' rpc.learner=127.0.0.1:1,127.0.0.1:2
dry 'rpc.envs: found ""' 'rpc.envs=127.0.0.1:1,'
dry 'rpc.learner: found 127.0.0.1:0, expected a port from 1 to 65535' rpc.learner=127.0.0.1:0
dry 'rpc.learner: found learner.example, expected a loopback address' rpc.learner=learner.example:7701
dry 'rpc.learner: found "::1:7701"' rpc.learner=::1:7701
dry "rpc.envs: found port ${port[0]} again, as rpc.learner" "rpc.envs=127.0.0.1:${port[0]}"
dry "metrics.learner_port: found port ${port[0]} again, as rpc.learner" "metrics.learner_port=${port[0]}"
dry 'metrics.rollout_port: found port 65536' metrics.rollout_port=65535 rollout.workers=2
dry 'rpc.bind: found 192.0.2.1 (Cannot assign requested address)' rpc.bind=192.0.2.1 rpc.insecure=true
dry 'rpc.bind: found "no name"' 'rpc.bind=no name'
dry 'rpc.bind: found example.org' rpc.bind=example.org
mkdir -p runs/known
echo 'rpc: {learner: "no address"}' >runs/known/config.resolved.yaml
refused '"no address"' "$atod" status runs/known
refused '"nowhere"' "$atod" status --config run.yaml --set rpc.learner=nowhere

# Output that does not arrive.
full() {
  local status=0
  "$@" >/dev/full 2>error </dev/null || status=$?
  [[ $status == 2 ]] && grep -q '^error: standard output: cannot write: No space left on device' error || {
    echo "$* >/dev/full: status $status"; cat error; exit 1; }
  cases=$((cases + 1))
}
full "$atod" --help
full "$atod" up --help
full "$atod" up --print-config
full "$atod" games --out full --seed 1 --train 1 --valid-seen 1 --valid-unseen 1
full "$atod" score --model model --input spans.jsonl
full "$atod" verify-model model
full "$(dirname "$atod")/atod-envs" --print-config
full "$(dirname "$atod")/atod-envs" --help
refused '/dev/full: cannot write: No space left on device' "$atod" eval \
  --policy random --games games --count 1 --out /dev/full
[[ -c /dev/full ]]

# Lines of JSON.
echo >none.jsonl
refused 'none.jsonl: found no rows, expected JSON lines' "$atod" score --model model --input none.jsonl
mkfifo pipe
refused 'pipe: found a pipe that nobody writes to, expected a file' "$atod" score --model model --input pipe
refused 'pipe: cannot open' "$atod" games demos --games games --count 1 --out pipe
rows() {
  printf '{"token_ids": [1, 2, 3], "spans": [[1, 2]]}\n%s\n' "$2" >rows.jsonl
  refused "rows.jsonl:2: $1" "$atod" score --model model --input rows.jsonl
}
rows 'found' '{'
rows 'token_ids: found' '[1]'
rows 'span: found an unknown key, expected spans' '{"token_ids": [1, 2], "span": [[1, 1]]}'
rows 'token_ids: found the key again in column 20, first in column 2' '{"token_ids": [1], "token_ids": [2], "spans": []}'
rows 'found parse error at line 1, column 16: syntax error' '{"token_ids": [NaN], "spans": []}'
rows 'found number overflow' '{"token_ids": [1e999], "spans": []}'
rows 'token_ids: found' '{"token_ids": [1.5]}'
rows 'tokens[1]: found 99999' '{"token_ids": [1, 99999], "spans": [[1, 1]]}'
rows 'spans[0]: found' '{"token_ids": [1, 2], "spans": [[0, 1]]}'
rows 'spans[0]: found' '{"token_ids": [1, 2], "spans": [[1, 5]]}'
rows 'spans: found [1,-1]' '{"token_ids": [1, 2], "spans": [[1, -1]]}'
rows 'tokens: found 0 ids' '{"token_ids": [], "spans": []}'
for input in none .; do
  refused "$input" "$atod" score --model model --input $input
  refused "$input" "$atod" advantages --step 1 --input $input
  refused "$input" "$atod" prompt --env alfworld --input $input
  refused "$input" "$atod" replay-env --golden $input
  refused "$input" "$atod" check-ledger $input
  refused "$input" "$atod" replay $input 1/0/0
done
# A run's ledger and spool.
mkdir -p run/spool
for bytes in 'no SQLite' '' 'SQLite format 3\0'; do
  printf "$bytes" >run/ledger.db
  refused 'run/ledger.db: ledger: found' "$atod" check-ledger run
done
rm run/ledger.db
refused 'run/ledger.db: ledger: found' "$atod" check-ledger run
printf 'ADSP garbage, and no frame of it' >run/spool/train-000001.spool
refused 'train-000001.spool: frame at byte 0' "$atod" trajectories list run
refused 'train-000001.spool: frame at byte 0' "$atod" trajectories show run 1/0/0
printf 'ADSP' >run/spool/train-000001.spool  # cut off while it was written
[[ -z $("$atod" trajectories list run) ]]
refused 'found 1/0/0, expected an id' "$atod" trajectories show run 1/0/0
refused 'run/spool: --step: found 7' "$atod" trajectories list run --step 7

refused '--temperature: found nan' "$atod" score --model model \
  --input spans.jsonl --temperature nan
refused 'score: --temperature: found inf, expected a number from 0.01 to 100' \
  "$atod" score --model model --input spans.jsonl --temperature inf
echo '{"id": "a", "token_ids": [1]}' >ids.jsonl
refused 'generate: --temperature: found 0.001, expected 0 (greedy), or a number from 0.01 to 100' \
  "$atod" generate --model model --input ids.jsonl --temperature 0.001
refused 'generate: --temperature: found 1000' "$atod" generate --model model --input ids.jsonl --temperature 1000
refused 'top_p: found 2' "$atod" generate --model model --input ids.jsonl --top-p 2
echo '{"id": "a", "token_ids": []}' >none_ids.jsonl
refused 'none_ids.jsonl: id "a": prompt: found 0 tokens' \
  "$atod" generate --model model --input none_ids.jsonl
refused 'nowhere: cannot open' "$atod" chat --model nowhere
refused 'libatod_cuda.so' "$atod" bench decode --model model --prompt 2 \
  --new 2 --device cuda
for text in '{' '[]' '{"trajectories": 3}' '{"trajectories": [{"id": 1}]}'; do
  echo "$text" >batch.json
  refused 'batch.json' "$atod" advantages --step 1 --input batch.json
done

# Games.
game=$(basename "$goldens"/pick_and_place_simple-Bowl-*.tw-pddl .tw-pddl)
cp "$goldens/$game.golden.json" .
play() {  # play TEXT PYTHON: after PYTHON changed the game `g` or its text `t`
  python3 - "$goldens/$game.tw-pddl" "$game.tw-pddl" "$2" <<'PYTHON'
import json, sys
t = open(sys.argv[1]).read()
scope = {"t": t, "g": json.loads(t)}
exec(sys.argv[3], scope)
open(sys.argv[2], "w").write(scope["t"] if scope["t"] != t else json.dumps(scope["g"]))
PYTHON
  refused "$1" "$atod" replay-env --golden "$game.golden.json"
}
play "$game.tw-pddl" 't = t[:len(t) // 2]'
play "$game.tw-pddl" 't = "[]"'
play 'pddl_domain' 'g["pddl_domain"] = g["pddl_domain"][:-40]'
play 'pddl_problem' 'g["pddl_problem"] = g["pddl_problem"][:-40]'
play 'pddl_problem' 'g["pddl_problem"] = "(define (problem"'
play 'grammar' 'g["grammar"] = g["grammar"][:-40] + "{{"'
play 'pddl_domain' 'del g["pddl_domain"]'

# Games on disk that are others than the manifest says, or not to be played.
"$atod" games stats games >/dev/null
one=$(find games/train -name '*.tw-pddl' | head -1)
cp "$one" kept; echo >>"$one"
refused 'games/manifest.json: splits: found 1 games that are gone or changed, 0 that it does not name' "$atod" games stats games
python3 -c 'import json, sys; g = json.load(open("kept")); g["walkthrough"] = "go"; json.dump(g, open(sys.argv[1], "w"))' "$one"
"$atod" games check games >out && exit 1
grep -q 'walkthrough: found "go", expected a list of commands, or none$' out || { cat out; exit 1; }
mv kept "$one"; mkdir -p games/train/odd/game.tw-pddl
"$atod" games check games >out && exit 1
grep -q 'game.tw-pddl: a folder, no file$' out || { cat out; exit 1; }
rm -r games/train/odd; "$atod" games check games >/dev/null
# A model without a tokenizer.
cp -r model bare; rm bare/tokenizer*.json
"$atod" verify-model bare | grep -q '^no tokenizer.json: '
refused 'bare/tokenizer.json: found no such file' "$atod" eval --model bare --games games --max-context 64

# Runs.
refused 'none: RUN: found nothing' "$atod" report none
refused 'RUN: found no metrics.jsonl' "$atod" report .
refused 'report: --out: found nothing' "$atod" report none other
mkdir -p run/evals
echo '{"step": 1}' >run/metrics.jsonl
refused 'run: RUN: found the same run again' "$atod" report run ./run --out x
echo '{"step": 1, "success": "yes"}' >run/evals/panel-000001.jsonl
refused 'panel-000001.jsonl:1: success: found' "$atod" report run
printf 'x\n{"step": 2}\n' >run/metrics.jsonl
refused 'metrics.jsonl:1: found x' "$atod" report run
refused 'diagnose: --temperature: found 0' "$atod" diagnose --model model \
  --teacher model --games . --temperature 0

refused '--games: found nothing' "$atod" eval --model model
"$atod" games --out games --seed 1 --train 2 --valid-seen 2 --valid-unseen 2 >/dev/null
# A chat template that is not known, before anything is played.
cp -r model template; printf '{{ messages }}' >template/chat_template.jinja
for command in eval 'diagnose --teacher model' 'collect --out o'; do
  # shellcheck disable=SC2086
  refused 'template/chat_template.jinja' "$atod" $command --model template \
    --games games --prompt-set paper --max-context 64 --max-tokens 8
done
refused 'sampling.eval_temperature: found' "$atod" eval --model model \
  --games games --max-context 64 --temperature 1e-6
refused 'score: --temperature: found 0.001' "$atod" score --model model \
  --input spans.jsonl --temperature 0.001
refused '--count: found 0' "$atod" eval --model model --games games \
  --max-context 64 --count 0
# Games that could not begin are no losses: the check fails, with the reason.
status=0
"$atod" eval --model model --games games --count 2 --max-context 24 \
  >out 2>error || status=$?
[[ $status == 1 && ! -s out ]]
grep -q '^error: 2 of 2 games ended in errors and are left out (prompt 2)' error
refused '--seed: found -1' "$atod" eval --model model --games games --seed -1
refused '--out: found folder games' "$atod" eval --model model --games games \
  --max-context 64 --out games
for flag in '--lr -1' '--lr nan' '--warmup -5' '--grad-clip -1' '--beta2 1.5' \
  '--seed -1' '--threads 9999'; do
  # shellcheck disable=SC2086
  refused "${flag% *}: found ${flag#* }, expected" "$atod" sft --model model \
    --data spans.jsonl --out sft $flag
done
# A collection that was made before stays when nothing new comes.
echo precious >kept.jsonl
if "$atod" collect --model model --games games --split train --count 1 \
  --attempts 1 --max-context 24 --out kept.jsonl >out 2>error; then
  echo "collect without a solved game: status 0"; exit 1
fi
[[ $(<kept.jsonl) == precious ]]
refused '--attempts: Value 0' "$atod" collect --model model --games . --attempts 0 --out x
refused 'none.yaml' "$atod" collect --config none.yaml --model model --out x
touch no-folder
refused 'no-folder: cannot create folder' "$atod" collect --model model --games . --out no-folder/x

# Tables of experiments.
experiments=$OLDPWD/experiments/run.sh
refused 'TABLE: found none' "$experiments" none
printf 'a\t0,x\tsteps=1\n' >table.tsv
refused "seeds of a: found '0,x'" "$experiments" "$PWD/table.tsv"
refused '--jobs: found 0' "$experiments" "$PWD/table.tsv" --jobs 0
echo "bad input: $cases cases, ok"
