#!/usr/bin/env bash
# What `atod up` does with services that fail, warn, end at once or are stopped:
# the real atod between services that are scripts.   tests/cli/up.sh [BUILD]
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
bin=$(realpath "${1:-build/release}")/bin tokenizer=$PWD/common/tokenizer/testdata/gpt2
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work"
cat >config.json <<'JSON'
{"model_type": "qwen3", "hidden_size": 32, "intermediate_size": 64,
 "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
 "head_dim": 16, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
 "rope_theta": 1e4, "tie_word_embeddings": true}
JSON
"$bin/atod" init-model --config config.json --tokenizer "$tokenizer" --out m >/dev/null
"$bin/atod" games --out g --seed 1 --train 2 --valid-seen 2 --valid-unseen 2 >/dev/null
mkdir bin
cp "$bin/atod" bin/atod  # it looks for the services where it lies itself
read -r -a port < <(python3 - <<'PY'
import socket
sockets = [socket.socket() for _ in range(2)]
for s in sockets: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))
PY
)
cat >c.yaml <<YAML
runs_dir: runs
steps: 3
model: {path: m, max_context: 512}
sampling: {train: {max_tokens: 64}}
env: {data: g}
algorithm: {recipe: grpo}
rpc: {learner: "127.0.0.1:${port[0]}", envs: "127.0.0.1:${port[1]}"}
metrics: {learner_port: 0, envs_port: 0, rollout_port: 0}
YAML
# service NAME: a script that runs in the run's folder; LIFE counts its lives.
service() {
  { echo '#!/usr/bin/env bash'
    echo 'for a in "$@"; do case $a in name=*) run=runs/${a#name=};; esac; done'
    echo 'echo >>"$run/'"$1"'.lives"; life=$(wc -l <"$run/'"$1"'.lives")'
    echo 'step() { echo "{\"step\": $1, \"time\": $(date +%s.%N)}" >>"$run/timings.jsonl"'
    echo '  echo "{\"step\": $1}" >>"$run/metrics.jsonl"; }'
    cat; } >"bin/atod-$1"
  chmod +x "bin/atod-$1"
}
wait_for_term='trap "exit 0" TERM; tail -f /dev/null & wait'
service envs <<<"$wait_for_term"
service rollout <<<"$wait_for_term"

# up STATUS NAME FLAG…: output in `out`.
up() {
  local status=0
  timeout 100 bin/atod up --config c.yaml --set "name=$2" "${@:3}" >out 2>&1 || status=$?
  [[ $status == "$1" ]] || fail "status $status, expected $1"
}
fail() { echo "$1"; cat out; exit 1; }
# shown COUNT REGEX: so many lines of `out` match.
shown() { [[ $(grep -cE -- "$2" out) == "$1" ]] || fail "expected $1 times: $2"; }
ok() { echo "ok: $1"; }

service learner <<<'echo "error: a tensor has NaN"; exit 1'
up 2 same
shown 1 'learner ended: a tensor has NaN \(exit status 1\); starting it again'
shown 4 'learner ended again \(exit status 1\)'
shown 1 '^error: learner: a tensor has NaN \(exit status 1\); 6 lives in a row without a new step'
ok "a run that fails the same way again ends, with the reason"

service learner <<<'step $life; [[ $life == 8 ]] && exit 0; kill -9 $$'
up 0 forward --set steps=8
shown 7 'learner ended.*signal 9'
shown 8 '^step '
shown 1 'done in .*, 7 restarts'
ok "lives that reach a step are not counted"

service learner <<<'echo "error: c.yaml: lr: found x, expected y" >&2; exit 2'
up 2 input
shown 0 'starting it again'
shown 1 '^error: learner: c.yaml: lr: found x, expected y \(exit status 2\) \(log: '
ok "what fails the same way after a restart is not tried again"

service learner <<<'step 0; step 1; step 2; step 3'
up 0 short
shown 4 '^step '
ok "a run that ends at once shows all its steps"

service rollout <<<'echo "warning: $(printf "a\033[2Jb")"; echo "warning: $(printf "a\033[2Jb")"; '"$wait_for_term"
service learner <<<'until [[ -s $run/logs/rollout-0.log && -s $run/logs/rollout-1.log ]]; do sleep 0.05; done; step 1'
up 0 warned --set rollout.workers=2
shown 1 'rollout-[01]: warning: a\\x1b\[2Jb$'
ok "a warning is shown once, with the service's name and without control bytes"

# The earlier life recorded three steps; the checkpoint that the learner goes on
# from has one.
mkdir -p runs/resumed
for n in 1 2 3; do
  echo "{\"step\": $n, \"time\": 1000}" >>runs/resumed/timings.jsonl
  echo "{\"step\": $n}" >>runs/resumed/metrics.jsonl
done
service learner <<<'for f in metrics timings; do head -1 $run/$f.jsonl >$run/x; mv $run/x $run/$f.jsonl; done; step 2; step 3'
up 0 resumed --resume
shown 1 'steps up to 3 are recorded'
shown 2 '^step +[23]/3'
ok "a resumed run shows the steps that it does again"

# Silent, so that the logs stay as they are once the run is ready.
service rollout <<<"$wait_for_term"
service learner <<<'touch $run/ready; '"$wait_for_term"
for checkpoint in no yes; do
  [[ $checkpoint == no ]] || { mkdir -p runs/stop/checkpoints/step-000001
    touch runs/stop/checkpoints/step-000001/MANIFEST.json; rm runs/stop/ready; }
  timeout 100 bin/atod up --config c.yaml --set name=stop >out 2>&1 & pid=$!
  until [[ -e runs/stop/ready ]]; do sleep 0.05; done
  before=$(cat runs/stop/logs/*)
  status=0; bin/atod up --config c.yaml --set name=stop >second 2>&1 || status=$?
  [[ $status == 2 ]] && grep -q 'name: found a run that is going on' second || { cat second; exit 1; }
  [[ $(cat runs/stop/logs/*) == "$before" && $(wc -l <runs/stop/learner.lives) == $([[ $checkpoint == no ]] && echo 1 || echo 2) ]] || fail "the living run was touched"
  kill -INT "$pid"; status=0; wait "$pid" || status=$?
  [[ $status == 130 ]] || fail "status $status, expected 130"
  [[ $checkpoint == no ]] && shown 1 'stopped before the first checkpoint; `atod up --resume` starts from the beginning' \
    || shown 1 'stopped; `atod up --resume` goes on from runs/stop/checkpoints/step-000001'
done
ok "Ctrl-C says where the run goes on; a living run's name is refused"
