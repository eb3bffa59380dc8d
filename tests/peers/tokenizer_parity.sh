#!/usr/bin/env bash
# Our tokenizer against Hugging Face's on random texts, for tokenizers trained
# by them (Qwen's and GPT-2's pattern), by us, and of Qwen3's own 151,643 entries
# (100,000 texts); and our chat format against Jinja with Qwen3's template.
#
#   tests/peers/tokenizer_parity.sh [BUILD_DIR] [NUMBER_OF_TEXTS]
# Exit status 77 (skipped) when the packages cannot be installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/release}
venv=${ATOD_CACHE:-$HOME/.cache/atod}/venv-tokenizer
if [[ ! -e $venv/complete-2 ]]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  pip=("$venv/bin/pip" --disable-pip-version-check -q)
  # trl holds the chat templates of many models, dashscope Qwen's vocabulary;
  # nothing else of them is used.
  if ! { "${pip[@]}" install tokenizers==0.23.3 transformers==5.23.0 jinja2 &&
         "${pip[@]}" download --no-deps -d "$venv" trl==1.16.0 dashscope==2.0.2; }; then
    rm -rf "$venv"
    echo "SKIPPED: pip cannot install tokenizers here"; exit 77
  fi
  touch "$venv/complete-2"
fi
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
TRANSFORMERS_VERBOSITY=error "$venv/bin/python" \
  tests/peers/tokenizer_parity.py --atod "$build/bin/atod" \
  --wheel "$venv"/trl-*.whl --dashscope "$venv"/dashscope-*.whl --work "$work" \
  --texts "${2:-10000}"
