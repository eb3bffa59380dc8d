#!/usr/bin/env bash
# The recorded games replayed over EnvService.   tests/cli/replay_server.sh [BUILD]
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${1:-build/release}/bin
work=$(mktemp -d); server=
trap 'if [[ $server ]]; then kill $server; wait $server || true; fi; rm -rf "$work"' EXIT
mkdir "$work/train"
cp tests/goldens/*.tw-pddl "$work/train"
mkfifo "$work/log"
"$bin/atod-envs" --set env.data="$work" --set rpc.envs=127.0.0.1:0 \
  --set metrics.envs_port=0 2>"$work/log" & server=$!
address=
while read -r line; do  # until it says where it serves
  if [[ $line =~ serving\ .*\ on\ ([0-9.:]+) ]]; then address=${BASH_REMATCH[1]}; break; fi
done <"$work/log"
[[ $address ]] || { echo 'no server'; exit 1; }
"$bin/atod" replay-env --server "$address" --golden tests/goldens/*.golden.json |
  tee "$work/out"
grep -q ' steps, 0 differences$' "$work/out"
