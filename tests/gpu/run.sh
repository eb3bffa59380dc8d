#!/usr/bin/env bash
# Builds the CUDA plugin and runs the tests that need a GPU: kernels against
# the CPU, NCCL with one rank. For a machine with an NVIDIA GPU and nvcc.
#
#   tests/gpu/run.sh [ctest arguments…]
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L | grep -q GPU; then
  echo "error: nvidia-smi: found no GPU, expected one" >&2
  exit 2
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader

deploy/setup.sh --tests --cuda
cmake --preset cuda
cmake --build build/cuda --target atod_cuda cuda_test device_test
# A test that skips itself for want of a GPU fails here.
export ATOD_REQUIRE_GPU=1
export LD_LIBRARY_PATH=$PWD/build/cuda/bin${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
exec ctest --test-dir build/cuda --output-on-failure -R '^(cuda_test|device_test)$' "$@"
