#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/envs/environment.h"

namespace atod::envs {

struct ResetRequest {
  std::string request_id;
  std::string env;
  EpisodeOptions options;
  std::vector<std::string> replay_actions;
  std::string content_hash{};  // of the split; empty: any
};

struct ResetResult {
  std::string episode_id;
  Observation first;                 // after the reset alone
  std::vector<StepResult> replayed;  // one for each replayed action
};

// No answer: the server died, hangs or cannot be reached.
inline bool IsAway(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

// How an agent loop reaches environments: in process or over EnvService. Calls
// return at once; `done` runs exactly once, on any thread, possibly before the
// call returns. Errors are those of EnvService (env.proto), or IsAway.
// Thread-safe.
class EnvCaller {
 public:
  virtual ~EnvCaller() = default;
  virtual absl::StatusOr<EnvDescription> Describe(const std::string& env) = 0;
  virtual void Reset(const ResetRequest& request,
                     std::function<void(absl::StatusOr<ResetResult>)> done) = 0;
  virtual void Step(const std::string& episode_id, uint32_t turn_index,
                    const std::string& model_text,
                    std::function<void(absl::StatusOr<StepResult>)> done) = 0;
  // Fire and forget.
  virtual void Close(const std::string& episode_id) = 0;
};

}  // namespace atod::envs
