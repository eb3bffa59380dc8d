#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "atod/v1/env.pb.h"

namespace atod::learner {

// What the environment servers offer, as the run needs it.
class TaskDirectory {
 public:
  virtual ~TaskDirectory() = default;
  // NOT_FOUND for a split that does not exist.
  virtual absl::StatusOr<v1::Split> GetSplit(const std::string& split) = 0;
  virtual absl::StatusOr<v1::Task> GetTask(const std::string& split,
                                           uint32_t index) = 0;
};

}  // namespace atod::learner
