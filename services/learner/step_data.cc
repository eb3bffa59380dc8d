#include "services/learner/step_data.h"

#include <algorithm>
#include <numeric>

#include "common/base/rng.h"

namespace atod::learner {
namespace {

constexpr uint64_t kUpdateStream = 0x75706474;

}  // namespace

std::vector<std::vector<int32_t>> SplitUpdates(int num_trajectories,
                                               uint32_t updates, uint64_t seed,
                                               uint32_t step) {
  std::vector<int32_t> order(num_trajectories);
  std::iota(order.begin(), order.end(), 0);
  if (updates > 1) Rng(MixSeed(seed, kUpdateStream, step)).Shuffle(order);
  std::vector<std::vector<int32_t>> out(
      std::min<size_t>(updates, std::max<size_t>(order.size(), 1)));
  size_t at = 0;
  for (size_t u = 0; u < out.size(); ++u) {
    const size_t take =
        order.size() / out.size() + (u < order.size() % out.size() ? 1 : 0);
    out[u].assign(order.begin() + at, order.begin() + at + take);
    std::sort(out[u].begin(), out[u].end());
    at += take;
  }
  return out;
}

std::vector<std::vector<int32_t>> PackMicroBatches(
    const std::vector<TrainSequence>& sequences,
    const std::vector<int32_t>& chosen, uint32_t max_tokens) {
  std::vector<std::vector<int32_t>> out;
  size_t tokens = 0;
  for (const int32_t i : chosen) {
    const size_t size = sequences[i].tokens.size();
    if (out.empty() || tokens + size > max_tokens) {
      out.emplace_back();
      tokens = 0;
    }
    out.back().push_back(i);
    tokens += size;
  }
  return out;
}

}  // namespace atod::learner
