#!/usr/bin/env bash
# Shows that the tests of the algorithm and of determinism can fail: makes one deliberate mistake
# at a time in a copy of the tree, rebuilds the test that should notice, and
# runs it. Exit status 1 when a mistake goes unnoticed.
#
#   tests/mutations.sh [WORK_FOLDER]     default: a new folder under $TMPDIR
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-$(mktemp -d)}
mkdir -p "$work/tree"
tar -c --exclude=./build --exclude=./.git --exclude=./runs --exclude=./data . | tar -x -C "$work/tree"
cd "$work/tree"
cmake --preset release -DCMAKE_UNITY_BUILD=OFF >"$work/configure.log" 2>&1 || { cat "$work/configure.log"; exit 2; }

kernels=common/device/kernels.h
cpu=common/device/cpu_device.cc
pieces=services/learner/algorithm
index_groups='  const GroupIndex groups = IndexGroups(batch.group);'

# Name | file | text that occurs once | what it becomes | test
mutations=(
  "clip whatever the sign|$pieces/surrogate.cc|if (clipped < plain) return|if (clipped != plain) return|algorithm_test"
  "dual clip of winners too|$pieces/surrogate.cc|options.dual_clip > 0 && advantage < 0 &&|options.dual_clip > 0 &&|algorithm_test"
  "entropy paid for, not earned|$pieces/update_loss.cc|out.entropy.push_back(-aux|out.entropy.push_back(aux|algorithm_test"
  "a turn's gradient of its first token|$pieces/update_loss.cc|Mean(by_ratio, begin, end)|Mean(by_ratio, begin, begin + 1)|algorithm_test"
  "old policy's Delta in an update|$pieces/advantages.cc|if (!signal.current|if (signal.current|algorithm_test"
  "gradient of SDAR's gate, too|$pieces/aux_loss.cc|return {gate * gap, -gate, false};|return {gate * gap, -gate - beta * gap * gate * (1 - gate), false};|algorithm_test"
  "teacher's sign turned round|$pieces/signal.cc|? teacher - student|? student - teacher|algorithm_test"
  "turn weight on the reward|$kernels|rl_coef * group_advantage|rl_coef * weight * group_advantage|algorithm_test"
  "population standard deviation|$kernels|== GroupStd::kBessel ? n - 1 : n|== GroupStd::kBessel ? n : n|algorithm_test"
  "equal rewards left to rounding|$kernels|if (flat) {|if (flat && n == 1) {|algorithm_test"
  "empty turns enter min-max|$kernels|if (token_begin[k] == token_begin[k + 1]) continue;||algorithm_test"
  "product instead of soft-OR|$kernels|return 1 - (1 - d_norm) * (1 - h_norm)|return d_norm * h_norm|algorithm_test"
  "min-max over the batch|$cpu|in.token_begin.data(), rows, in.tdur|in.token_begin.data(), (static_cast<void>(rows), kernels::Range{0, turns}), in.tdur|algorithm_test"
  "statistics over turn rows|services/learner/recipe_of.cc|{80, 3, 0.01, \"episode\", \"where_varies\", \"trajectory\"|{80, 3, 0.01, \"episode\", \"where_varies\", \"turn\"|algorithm_test"
  "statistics after padding|$pieces/advantages.cc|$index_groups|GroupIndex groups = IndexGroups(batch.group); while (groups.num_groups() > 0 && groups.member.size() % 16 > 0) { groups.member.push_back(groups.member.back()); ++groups.begin.back(); }|algorithm_test"
  "groups by adjacency|$pieces/groups.cc|return group[a] < group[b];|return a < b;|algorithm_test"
  "schedule one step late|$pieces/recipe.h|{s, kl.At(s)|{s, kl.At(s - 1)|algorithm_test"
  "order of arrival kept|services/learner/step_builder.cc|return IdOf(*a) < IdOf(*b);|return a < b;|step_builder_test"
  "gradient parts by threads|common/model/packed_score.cc|constexpr int64_t kParts = 8;|#define kParts int64_t{at::get_num_threads()}|self_test_test"
  "penalty in flat groups|$pieces/reward_transform.cc|PenaltyOrder::kWhereVaries && !flat|PenaltyOrder::kWhereVaries && (flat + 1)|algorithm_test"
  "whole episode pays for a row|$pieces/reward_transform.cc|options.penalty_place == Unit::kTrajectory|options.penalty_place != options.statistics|algorithm_test"
  "SOD without its ceiling|$pieces/weights/sod.cc|return std::min((first|return std::max((first|algorithm_test"
  "token weights without the cut|$pieces/weights/token.cc|h = std::min(h, most)|h = std::max(h, h + 0 * most)|algorithm_test"
  "kept fraction drops ties|$pieces/weights/modifiers.cc|< sorted[kept - 1]|<= sorted[kept - 1]|algorithm_test"
  "one micro-batch for all|$pieces/token_weights.cc|rows % options.rows == 0|rows < 0|algorithm_test"
  "weight floor by maximum|$pieces/weights/modifiers.cc|(1 - m.floor) * *u.weight + m.floor|std::max(*u.weight, m.floor)|algorithm_test"
  "trajectories by tokens|$pieces/token_weights.cc|if (options.how == Aggregation::kTrajectory) {|if (options.how == Aggregation::kToken) {|algorithm_test"
)

build() { cmake --build build/release --target "$1" >"$work/build.log" 2>&1; }
program() { find build/release -type f -name "$1" -perm -u+x | head -1; }

for test in algorithm_test policy_trainer_test step_builder_test self_test_test; do
  build $test || { tail -20 "$work/build.log"; echo "error: $test: does not build unchanged" >&2; exit 2; }
  "$(program $test)" >"$work/run.log" 2>&1 || { tail -20 "$work/run.log"; echo "error: $test: fails unchanged" >&2; exit 2; }
done

survived=0
printf '%-34s %-10s %s\n' MISTAKE RESULT 'FIRST TEST THAT NOTICED'
for mutation in "${mutations[@]}"; do
  IFS='|' read -r name file from to test <<<"$mutation"
  cp "$file" "$work/original"
  if ! FROM=$from TO=$to python3 - "$file" <<'PY'
import os, sys
path, source = sys.argv[1], open(sys.argv[1]).read()
if source.count(os.environ["FROM"]) != 1:
    sys.exit(f"error: {path}: found {source.count(os.environ['FROM'])} times {os.environ['FROM']!r}, expected once")
open(path, "w").write(source.replace(os.environ["FROM"], os.environ["TO"]))
PY
  then exit 2; fi
  if ! build "$test"; then
    # A mistake has to be a program that runs: repair this list.
    tail -20 "$work/build.log"; echo "error: mutation \"$name\" does not build" >&2; exit 2
  fi
  if "$(program "$test")" >"$work/run.log" 2>&1; then
    printf '%-34s %-10s %s\n' "$name" SURVIVED "$test"; survived=$((survived + 1))
  else
    printf '%-34s %-10s %s\n' "$name" caught "$(grep -m1 -oP '\[  FAILED  \] \K[\w.]+' "$work/run.log" || echo "$test crashed")"
  fi
  cp "$work/original" "$file"
done
echo "mutations: ${#mutations[@]} made, $survived survived"
[[ $survived == 0 ]]
