#!/usr/bin/env bash
# Makes a folder that tests what needs a GPU on a machine that has one, but no
# network and none of our packages: programs, CUDA plugin, tests and the Debian
# libraries they link, without LibTorch, which must be there (torch 2.11.0+cu130
# in Python). At most 64 MiB. Needs nvcc here, and no GPU.
#
#   tests/gpu/bundle.sh [OUT_DIR]            default: build/gpu-bundle
# and there:
#   OUT_DIR/run.sh [RESULTS_DIR]
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-build/gpu-bundle}
programs=(atod atod-envs atod-learner atod-rollout atod-teacher)
tests=(cuda_test device_test language_model_test)

cmake --preset cuda
cmake --build build/cuda --target atod_cuda "${programs[@]}" "${tests[@]}"

rm -rf "$out"
mkdir -p "$out/bin" "$out/lib"
for name in "${programs[@]}" libatod_cuda.so; do
  cp "build/cuda/bin/$name" "$out/bin/"
done
for name in "${tests[@]}"; do
  cp "$(find build/cuda -type f -perm -u+x -name "$name" -print -quit)" "$out/bin/"
done
strip "$out"/bin/*
# What the C library and LibTorch do not bring.
ldd "$out"/bin/* | awk '$2 == "=>" && $3 ~ "^/" {print $3}' | sort -u |
  grep -vE '/torch/lib/|/nvidia/|/(libc|libm|libdl|librt|libpthread|libutil|ld-linux.*)\.so' |
  while read -r library; do cp -L "$library" "$out/lib/"; done
cp tests/gpu/run.sh "$out/run.sh"
cp tests/gpu/config-0.6b.json "$out/"
git rev-parse HEAD >"$out/commit"
size=$(du -sm "$out" | cut -f1)
echo "$out: $size MiB, commit $(cat "$out/commit")"
if ((size > 64)); then
  echo "error: $out: found $size MiB, expected at most 64" >&2
  exit 1
fi
