#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/rng.h"
#include "services/envs/environment.h"

namespace atod::games {

// Plays without a model: for evaluation, demonstrations and tests.
class Policy {
 public:
  virtual ~Policy() = default;
  // The command to play where `seen` was observed.
  virtual std::string Act(const envs::Observation& seen) = 0;
};

// Uniform over the verbs of the admissible commands, then over the commands of
// the verb.
class RandomPolicy : public Policy {
 public:
  explicit RandomPolicy(uint64_t seed) : rng_(seed) {}
  std::string Act(const envs::Observation& seen) override;

 private:
  Rng rng_;
};

// The expert of planner.h.
class PlannerPolicy : public Policy {
 public:
  std::string Act(const envs::Observation& seen) override;
};

// "random" or "planner"; INVALID_ARGUMENT otherwise.
absl::StatusOr<std::unique_ptr<Policy>> MakePolicy(const std::string& name,
                                                   uint64_t seed);

}  // namespace atod::games
