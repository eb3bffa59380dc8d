// What needs a GPU: kernels against the CPU's loop, NCCL. Skipped without one,
// unless ATOD_REQUIRE_GPU is set (tests/gpu/run.sh), when that is a failure.

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "common/base/rng.h"
#include "common/collective/communicator.h"
#include "common/device/cpu_device.h"
#include "common/device/device.h"
#include "common/device/plugin.h"
#include "gtest/gtest.h"

namespace atod {
namespace {

// A step with uneven trajectories, empty turns and flat groups.
struct RandomStep {
  std::vector<int32_t> group_begin{0}, group_member, turn_begin{0},
      token_begin{0};
  std::vector<double> reward, old_logprob, teacher_logprob;

  RandomStep(uint64_t seed, int groups, int group_size, int max_turns,
             int max_tokens) {
    Rng rng(seed);
    for (int g = 0; g < groups; ++g) {
      for (int i = 0; i < group_size; ++i) {
        reward.push_back(g % 3 == 0 ? 0.1 : 10.0 * rng.Below(2));
        for (uint64_t k = rng.Below(max_turns + 1); k > 0; --k) {
          for (uint64_t t = rng.Below(max_tokens + 1); t > 0; --t) {
            old_logprob.push_back(-4 * rng.Uniform());
            teacher_logprob.push_back(-4 * rng.Uniform());
          }
          token_begin.push_back(static_cast<int32_t>(old_logprob.size()));
        }
        turn_begin.push_back(static_cast<int32_t>(token_begin.size() - 1));
      }
      group_begin.push_back(static_cast<int32_t>(reward.size()));
    }
    group_member.resize(reward.size());
    std::iota(group_member.begin(), group_member.end(), 0);
    rng.Shuffle(group_member);
  }

  StatisticsInput Statistics(bool with_teacher) const {
    StatisticsInput in;
    in.group_begin = group_begin;
    in.group_member = group_member;
    in.reward = reward;
    in.turn_begin = turn_begin;
    in.token_begin = token_begin;
    in.old_logprob = old_logprob;
    if (with_teacher) in.teacher_logprob = teacher_logprob;
    in.tdur = {.enabled = true, .min_turns = 3, .min_divergence = 0.01};
    return in;
  }

  // Any numbers will do as weights and signals.
  CombineInput Combine(const StatisticsOutput& of, bool with_teacher) const {
    CombineInput in;
    in.token_begin = token_begin;
    in.kl_coef = 0.55;
    in.weight = with_teacher ? absl::MakeConstSpan(of.w) : old_logprob;
    in.token_weights = !with_teacher;
    if (with_teacher) in.signal = teacher_logprob;
    in.rl_coef = 1.5;
    in.group_advantage = of.h;
    return in;
  }
};

class Cuda : public testing::Test {
 protected:
  void SetUp() override {
    auto device = OpenDevice("cuda");
    if (device.ok()) {
      device_ = *std::move(device);
      return;
    }
    if (std::getenv("ATOD_REQUIRE_GPU") != nullptr) FAIL() << device.status();
    GTEST_SKIP() << device.status().message();
  }

  std::unique_ptr<DeviceBackend> device_;
};

TEST_F(Cuda, KernelsGiveTheCpusBits) {
  const auto cpu = MakeCpuDevice();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    // Sizes go up and down: memory is reused.
    const RandomStep step(seed, 1 + seed % 7 * 3, 1 + seed % 9,
                          seed % 2 == 0 ? 50 : 3, seed % 3 == 0 ? 200 : 4);
    for (const bool with_teacher : {true, false}) {
      StatisticsInput in = step.Statistics(with_teacher);
      in.group.raw_single = with_teacher;
      in.group.std = static_cast<kernels::GroupStd>(seed % 3);
      StatisticsOutput expected, got;
      ASSERT_TRUE(cpu->Statistics(in, &expected).ok());
      absl::Status status = device_->Statistics(in, &got);
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_EQ(got.flat, expected.flat);
      EXPECT_EQ(got.grpo, expected.grpo);
      EXPECT_EQ(got.active, expected.active);
      EXPECT_EQ(got.d, expected.d);
      EXPECT_EQ(got.h, expected.h);
      EXPECT_EQ(got.d_norm, expected.d_norm);
      EXPECT_EQ(got.h_norm, expected.h_norm);
      EXPECT_EQ(got.w, expected.w);
      const CombineInput combine = step.Combine(expected, with_teacher);
      std::vector<double> sum, sum_got;
      ASSERT_TRUE(cpu->Combine(combine, &sum).ok());
      status = device_->Combine(combine, &sum_got);
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_EQ(sum_got, sum);
    }
  }
}

TEST_F(Cuda, AnEmptyStepIsNoError) {
  const RandomStep step(1, 0, 0, 0, 0);
  StatisticsOutput out;
  absl::Status status = device_->Statistics(step.Statistics(true), &out);
  EXPECT_TRUE(status.ok()) << status;
  std::vector<double> sum;
  status = device_->Combine(step.Combine(out, true), &sum);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(sum.empty());
}

// One rank: what a single GPU can show. Values stay, and calls end.
TEST_F(Cuda, NcclOfOneRankIsTheIdentity) {
  const auto plugin = LoadDevicePlugin();
  ASSERT_TRUE(plugin.ok());
  char token[DevicePlugin::kJoinTokenBytes] = {};
  const absl::Status made = (*plugin)->make_join_token(token);
  ASSERT_TRUE(made.ok()) << made;
  auto communicator =
      (*plugin)->make_communicator(token, 0, 1, absl::Seconds(60));
  ASSERT_TRUE(communicator.ok()) << communicator.status();
  Communicator& c = **communicator;

  const std::vector<float> sent = {1.5f, -2, 3};
  const size_t bytes = sent.size() * sizeof(float);
  void* data = nullptr;
  void* other = nullptr;
  ASSERT_EQ(cudaMalloc(&data, bytes), cudaSuccess);
  ASSERT_EQ(cudaMalloc(&other, bytes), cudaSuccess);
  const auto put = [&] {
    ASSERT_EQ(cudaMemcpy(data, sent.data(), bytes, cudaMemcpyHostToDevice),
              cudaSuccess);
    ASSERT_EQ(cudaMemset(other, 0, bytes), cudaSuccess);
  };
  const auto get = [&](const void* from) {
    std::vector<float> got(sent.size());
    EXPECT_EQ(cudaMemcpy(got.data(), from, bytes, cudaMemcpyDeviceToHost),
              cudaSuccess);
    return got;
  };
  put();
  EXPECT_TRUE(c.AllReduce(data, 3, ElementType::kFloat32, ReduceOp::kSum).ok());
  EXPECT_EQ(get(data), sent);
  EXPECT_TRUE(c.AllGather(data, other, 3, ElementType::kFloat32).ok());
  EXPECT_EQ(get(other), sent);
  put();
  EXPECT_TRUE(c.ReduceScatter(data, other, 3, ElementType::kFloat32).ok());
  EXPECT_EQ(get(other), sent);
  EXPECT_TRUE(c.Broadcast(data, 3, ElementType::kFloat32, 0).ok());
  EXPECT_EQ(get(data), sent);
  EXPECT_TRUE(c.Barrier().ok());
  c.Abort();
  EXPECT_FALSE(c.Barrier().ok());
  cudaFree(data);
  cudaFree(other);
}

}  // namespace
}  // namespace atod
