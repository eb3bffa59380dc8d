#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace atod::learner {

// What may enter a batch, whether a worker, a teacher or a file brings it. A
// float32 log-softmax of a certain token can come out a little above 0.
inline constexpr double kMostLogProb = 1e-4;
inline bool IsLogProb(double x) {
  return std::isfinite(x) && x <= kMostLogProb;
}
inline constexpr char kLogProbText[] = "a log-prob: finite, at most 0.0001";
// Rewards whose squares can be added up.
inline constexpr double kMostReward = 1e100;
inline bool IsReward(double x) { return std::abs(x) <= kMostReward; }
inline constexpr char kRewardText[] = "a number between -1e100 and 1e100";

// All trajectories of one step as columns. Trajectories, turns and tokens are
// in canonical order (step, group, sample; turn; token), whatever the order of
// arrival. Only sampled tokens of trainable turns have rows. Offsets have one
// more entry than things: turns of trajectory i are
// [turn_begin[i], turn_begin[i + 1]).
struct StepBatch {
  // Per trajectory.
  std::vector<std::string> trajectory_id;
  std::vector<int32_t> group;  // dense group number, ascending
  std::vector<double> reward;  // R(tau) of the environment, before penalties
  std::vector<int32_t> turn_begin{0};
  // Per turn.
  std::vector<int32_t> turn_index;    // k, from 0
  std::vector<uint8_t> valid_action;  // 0 or 1
  std::vector<int32_t> token_begin{0};
  // Per token: log-probs in nats at the sampling temperature. Computed and sent
  // as float32; held as float64 because the statistics are float64.
  std::vector<double> rollout_logprob;  // of the engine that sampled
  std::vector<double> old_logprob;      // pi_old, what d, h and Delta use
  std::vector<double> teacher_logprob;  // pi_T; empty without a teacher
  // Empty unless the recipe needs them.
  std::vector<double> reference_logprob;  // of the frozen reference model
  std::vector<double> context_logprob;    // pi_old under the other context

  int num_trajectories() const { return static_cast<int>(group.size()); }
  int num_turns() const { return static_cast<int>(turn_index.size()); }
  int num_tokens() const { return token_begin.back(); }
};

}  // namespace atod::learner
