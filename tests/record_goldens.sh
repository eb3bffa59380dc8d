#!/usr/bin/env bash
# Records tests/goldens anew: generates games of all six task types and one of
# full size, plays them in Microsoft's TextWorld (PyPI, in a throw-away venv)
# and writes down what it says. Our engine must say the same:
#
#   atod replay-env --golden tests/goldens/*.golden.json
#
#   tests/record_goldens.sh BUILD_DIR
set -euo pipefail
build=$(realpath "${1:?usage: tests/record_goldens.sh BUILD_DIR}")
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" -q install "textworld[pddl]"
"$build/bin/atod" games --out "$work/small" --seed 2026 \
  --train 12 --valid-seen 0 --valid-unseen 0
"$build/bin/atod" games --out "$work/full" --seed 2026 --classes full \
  --train 4 --valid-seen 0 --valid-unseen 0
rm -f tests/goldens/*.json tests/goldens/*.tw-pddl
"$work/venv/bin/python" tests/record_goldens.py --out tests/goldens \
  --games "$work/small" --each-type 1 --more 3
"$work/venv/bin/python" tests/record_goldens.py --out tests/goldens \
  --games "$work/full" --type pick_heat_then_place_in_recep --prefix full-
