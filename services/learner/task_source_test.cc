#include "services/learner/task_source.h"

#include <set>

#include "gtest/gtest.h"

namespace atod::learner {
namespace {

TEST(TaskSourceTest, EveryTaskComesOnceAnEpochEvenAcrossSteps) {
  constexpr uint32_t kTasks = 35, kGroups = 8;  // epochs end inside steps
  const TaskSource source(7, kTasks, kGroups);
  std::vector<uint32_t> stream;
  for (uint32_t step = 1; stream.size() < 3 * kTasks; ++step) {
    for (uint32_t g = 0; g < kGroups; ++g)
      stream.push_back(source.Choose(step, g).index);
  }
  std::set<std::vector<uint32_t>> orders;
  for (int epoch = 0; epoch < 3; ++epoch) {
    const std::vector<uint32_t> order(stream.begin() + epoch * kTasks,
                                      stream.begin() + (epoch + 1) * kTasks);
    EXPECT_EQ(std::set<uint32_t>(order.begin(), order.end()).size(), kTasks);
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 3u) << "each epoch has an order of its own";
}

TEST(TaskSourceTest, AChoiceDependsOnNothingButSeedStepAndGroup) {
  const TaskSource forward(3, 20, 4), backward(3, 20, 4), other(4, 20, 4);
  std::vector<TaskChoice> a, b;
  for (uint32_t step = 1; step <= 12; ++step)
    for (uint32_t g = 0; g < 4; ++g) a.push_back(forward.Choose(step, g));
  for (uint32_t step = 12; step >= 1; --step)
    for (uint32_t g = 4; g-- > 0;) b.push_back(backward.Choose(step, g));
  int differs = 0;
  std::set<uint64_t> env_seeds;
  for (size_t i = 0; i < a.size(); ++i) {
    const TaskChoice& same = b[b.size() - 1 - i];
    EXPECT_EQ(a[i].index, same.index);
    EXPECT_EQ(a[i].env_seed, same.env_seed);
    differs += a[i].index != other.Choose(1 + i / 4, i % 4).index;
    env_seeds.insert(a[i].env_seed);
  }
  EXPECT_GT(differs, 0);
  EXPECT_EQ(env_seeds.size(), a.size());
}

TEST(PanelTest, IsFixedBySeedDistinctAndNeverLargerThanTheSplit) {
  const std::vector<uint32_t> panel = MakePanel(1, 140, 128);
  EXPECT_EQ(panel, MakePanel(1, 140, 128));
  EXPECT_NE(panel, MakePanel(2, 140, 128));
  EXPECT_EQ(std::set<uint32_t>(panel.begin(), panel.end()).size(), 128u);
  EXPECT_LT(panel.back(), 140u);
  EXPECT_EQ(MakePanel(1, 5, 128), (std::vector<uint32_t>{0, 1, 2, 3, 4}));
}

TEST(PanelTest, HashChangesWithContentAndIndices) {
  const std::string hash = PanelHash("aa", {1, 2});
  EXPECT_EQ(hash, PanelHash("aa", {1, 2}));
  EXPECT_NE(hash, PanelHash("ab", {1, 2}));
  EXPECT_NE(hash, PanelHash("aa", {1, 3}));
}

}  // namespace
}  // namespace atod::learner
