#!/usr/bin/env bash
# Our tokenizer against Hugging Face's, on 10,000 random texts for each of five
# tokenizers (trained by them with Qwen's and GPT-2's pattern, trained by us);
# and our chat format against Jinja. Needs pip; leaves nothing behind.
#   tests/peers/tokenizer_parity.sh [PATH_TO_ATOD] [NUMBER_OF_TEXTS]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
atod=$(realpath "${1:-$here/../../build/release/bin/atod}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check \
  tokenizers==0.23.3 transformers==5.23.0
# Chat templates of many models lie in this package.
"$work/venv/bin/pip" download -q --disable-pip-version-check --no-deps \
  -d "$work" trl==1.16.0
"$work/venv/bin/python" "$here/tokenizer_parity.py" \
  --atod "$atod" --work "$work" --texts "${2:-10000}"
