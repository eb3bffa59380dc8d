#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "atod/v1/config.pb.h"
#include "atod/v1/env.grpc.pb.h"
#include "atod/v1/teacher.grpc.pb.h"
#include "services/learner/task_directory.h"

namespace atod::learner {

// Asked between two tries of something that a peer does not answer yet: waits a
// little; false means give up.
using KeepTrying = std::function<bool()>;

// The environment servers of the run. Tasks are asked for one by one and
// remembered. Thread-compatible.
class EnvPeers final : public TaskDirectory {
 public:
  // Waits for every server of rpc.envs and checks that all hold the same
  // tasks and show them as this run's configuration says. FAILED_PRECONDITION
  // names the server that differs; CANCELLED when `keep_trying` gives up.
  static absl::StatusOr<std::unique_ptr<EnvPeers>> Connect(
      const v1::RunConfig& config, KeepTrying keep_trying);

  absl::StatusOr<v1::Split> GetSplit(const std::string& split) override;
  absl::StatusOr<v1::Task> GetTask(const std::string& split,
                                   uint32_t index) override;

 private:
  std::string env_;
  std::vector<std::string> addresses_;
  std::vector<std::unique_ptr<v1::EnvService::Stub>> stubs_;
  v1::EnvDescription description_;
  std::map<std::pair<std::string, uint32_t>, v1::Task> tasks_;
  KeepTrying keep_trying_;
};

// Waits for the teacher of rpc.teacher and checks that it has every configured
// teacher, with the student's tokenizer. Returns what the teacher says of them.
absl::StatusOr<std::vector<v1::ModelInfo>> CheckTeachers(
    const v1::RunConfig& config, const std::string& tokenizer_hash,
    const KeepTrying& keep_trying);

}  // namespace atod::learner
