#!/usr/bin/env bash
# In a bundle (bundle.sh), on a machine with an NVIDIA GPU and torch 2.11.0+cu130
# in Python: kernels against the CPU, NCCL with one rank, the model on the GPU
# against the CPU, decode and scoring rates, one packed update of a 0.6B with
# its peak memory beside the plan. Random weights, no network. Every part runs,
# whatever another found.
#
#   run.sh [RESULTS_DIR]       default: results, beside this file
# RESULTS_DIR gets a log a part and results.jsonl; exit status 1 if a part
# failed.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
results=$(mkdir -p "${1:-$here/results}" && cd "${1:-$here/results}" && pwd)
python=${PYTHON:-python3}

nvidia-smi -L | grep -q GPU || { echo "error: nvidia-smi: found no GPU, expected one" >&2; exit 2; }
torch=$("$python" -c 'import torch; print(torch.__path__[0], torch.__version__)') ||
  { echo "error: $python: found no torch, expected 2.11.0+cu130" >&2; exit 2; }
read -r torch_dir torch_version <<<"$torch"
if [[ $torch_version != 2.11.0* ]]; then
  echo "error: torch: found $torch_version, expected 2.11.0" >&2
  exit 2
fi
site=$(dirname "$torch_dir")
LD_LIBRARY_PATH=$here/lib:$torch_dir/lib:$(find "$site"/nvidia -type d -name lib -printf '%p:' 2>/dev/null)${LD_LIBRARY_PATH:-}
export LD_LIBRARY_PATH
# A test that skips itself for want of a GPU fails here.
export ATOD_REQUIRE_GPU=1 ATOD_TEST_DEVICE=cuda

{
  cat "$here/commit"
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  echo "torch $torch_version"
} | tee "$results/machine.txt"
: >"$results/results.jsonl"
failed=0

part() {  # NAME COMMAND…: its output to a log, its verdict to results.jsonl
  local name=$1 begin=$SECONDS rc
  shift
  timeout "${PART_SECONDS:-300}" "$@" >"$results/$name.log" 2>&1
  rc=$?
  echo "{\"part\": \"$name\", \"exit\": $rc, \"seconds\": $((SECONDS - begin))}" |
    tee -a "$results/results.jsonl"
  if ((rc != 0)); then
    failed=1
    tail -n 15 "$results/$name.log"
  else
    # Lines of figures go beside the verdict.
    grep '^{' "$results/$name.log" | tee -a "$results/results.jsonl"
  fi
}

for test in cuda_test device_test language_model_test; do
  part "$test" "$here/bin/$test" --gtest_color=no
done
model=$results/random-0.6b
# Ids are drawn at random: which tokens they are does not matter.
printf '{"text": "You are in the middle of a room."}\n' >"$results/text.jsonl"
part tokenizer "$here/bin/atod" train-tokenizer --data "$results/text.jsonl" \
  --vocab-size 300 --out "$results/tokenizer"
part init-model "$here/bin/atod" init-model --config "$here/config-0.6b.json" \
  --tokenizer "$results/tokenizer" --init hf --out "$model"
for batch in 1 64 128 256; do
  part "decode-$batch" "$here/bin/atod" bench decode --model "$model" \
    --device cuda --dtype bf16 --batch "$batch" --prompt 512 --new 128
  part "score-$batch" "$here/bin/atod" bench score --model "$model" \
    --device cuda --dtype bf16 --batch "$batch" --prompt 512 --new 100
done
part train "$here/bin/atod" bench train --model "$model" \
  --device cuda --dtype bf16 --batch 32 --prompt 412 --new 100
rm -rf "$model" "$results/tokenizer" "$results/text.jsonl"
if ((failed)); then echo "gpu: some parts failed, see $results"; else echo "gpu: all parts passed"; fi
exit "$failed"
