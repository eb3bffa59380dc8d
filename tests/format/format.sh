#!/usr/bin/env bash
# Every C++ and CUDA file is as clang-format leaves it. 77 without the program.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v clang-format >/dev/null || { echo "no clang-format"; exit 77; }
find common services report tests \( -name '*.h' -o -name '*.cc' -o -name '*.cu' \) -print0 |
  xargs -0 -n 16 -P "$(nproc)" clang-format --dry-run -Werror
