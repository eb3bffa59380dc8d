#include "services/learner/task_source.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/file.h"
#include "common/base/rng.h"

namespace atod::learner {
namespace {

// Keep the streams derived from one run seed apart.
constexpr uint64_t kOrderStream = 0x7461736b;
constexpr uint64_t kEnvStream = 0x656e7673;
constexpr uint64_t kPanelStream = 0x70616e65;

std::vector<uint32_t> Permutation(uint64_t seed, uint32_t size) {
  std::vector<uint32_t> order(size);
  std::iota(order.begin(), order.end(), 0);
  Rng(seed).Shuffle(order);
  return order;
}

}  // namespace

TaskSource::TaskSource(uint64_t seed, uint32_t split_size,
                       uint32_t groups_per_step)
    : seed_(seed), split_size_(split_size), groups_per_step_(groups_per_step) {}

TaskChoice TaskSource::Choose(uint32_t step, uint32_t group) const {
  const uint64_t position =
      static_cast<uint64_t>(step - 1) * groups_per_step_ + group;
  const uint64_t epoch = position / split_size_;
  if (epoch != epoch_) {
    order_ = Permutation(MixSeed(seed_, kOrderStream, epoch), split_size_);
    epoch_ = epoch;
  }
  return {order_[position % split_size_],
          MixSeed(seed_, kEnvStream, step, group)};
}

std::vector<uint32_t> MakePanel(uint64_t panel_seed, uint32_t split_size,
                                uint32_t size) {
  std::vector<uint32_t> panel =
      Permutation(MixSeed(panel_seed, kPanelStream), split_size);
  panel.resize(std::min(size, split_size));
  std::sort(panel.begin(), panel.end());
  return panel;
}

std::string PanelHash(const std::string& split_content_hash,
                      const std::vector<uint32_t>& panel) {
  return HashHex(
      absl::StrCat(split_content_hash, ":", absl::StrJoin(panel, ",")));
}

}  // namespace atod::learner
