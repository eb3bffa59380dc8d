#!/usr/bin/env bash
# Builds the fuzz targets with clang (libFuzzer, AddressSanitizer and
# UndefinedBehaviorSanitizer) and runs them, two at a time; exit status 1 when an
# input broke a target. That input is in build/fuzz/found/TARGET: put it into
# tests/fuzz/corpus/TARGET, where a test plays it from then on.
#
#   deploy/setup.sh --fuzz
#   tests/fuzz/run.sh [SECONDS a target = 300] [TARGET…] >docs/results/fuzzing.md
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-300}
shift $(($# > 0 ? 1 : 0))
targets=("$@")
if ((${#targets[@]} == 0)); then
  mapfile -t targets < <(ls tests/fuzz/*_fuzz.cc | sed 's|.*/||; s|_fuzz.cc||')
fi
mkdir -p build
cmake --preset fuzz >build/configure-fuzz.log 2>&1 || { cat build/configure-fuzz.log >&2; exit 2; }
cmake --build build/fuzz --target "${targets[@]/#/fuzz_}" -j "$(nproc)" >&2

export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=0
export UBSAN_OPTIONS=print_stacktrace=1
fuzz() {
  local name=$1 out=build/fuzz/found/$1
  mkdir -p "$out/new"
  rm -f "$out"/{crash,timeout,oom,leak,slow-unit}-*
  # An input that needs 25 s, 1 GB or one allocation of 256 MB counts as broken.
  local status=0
  "$(find build/fuzz/tests/fuzz -name "fuzz_$name" -type f)" \
    -max_total_time="$seconds" -timeout=25 -rss_limit_mb=1024 -malloc_limit_mb=256 \
    -print_final_stats=1 -artifact_prefix="$out/" -verbosity=1 \
    "$out/new" "tests/fuzz/corpus/$name" >"$out/log" 2>&1 || status=$?
  local runs; runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$out/log")
  local took; took=$(sed -n 's/^Done [0-9]* runs in \([0-9]*\) second.*/\1/p' "$out/log")
  local broken; broken=$(find "$out" -maxdepth 1 -name '*-*' -not -name 'slow-unit*' | wc -l)
  if ((status != 0 && broken == 0)); then broken="exit status $status"; fi
  printf '| %s | %s | %s | %s |\n' "$name" "${runs:-?}" "${took:-?}" "$broken"
}
export -f fuzz
export seconds
mkdir -p build/fuzz/rows
(cd build/fuzz/rows && rm -f "${targets[@]}")
printf '%s\n' "${targets[@]}" |
  xargs -P 2 -I{} bash -c 'fuzz {} >build/fuzz/rows/{}; echo "fuzz: $(cat build/fuzz/rows/{})" >&2'
cat <<PAGE
# Fuzzers

Made by \`tests/fuzz/run.sh $seconds >docs/results/fuzzing.md\`: libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer
($(clang++-14 --version | sed -n 's/^.*\(clang version [0-9.]*\).*/\1/p')). An input counts as a crash when it breaks a target, needs
more than 25 s, 1 GB or one allocation of 256 MB. Commit and load average at the end: $(git rev-parse --short HEAD), $(cut -d' ' -f1 /proc/loadavg). A call that names
targets keeps the rows of the others.

| target | executions | seconds | crashes |
|---|---:|---:|---:|
$(cat build/fuzz/rows/*)
PAGE
! grep -hqv '| 0 |$' build/fuzz/rows/*
