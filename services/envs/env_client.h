#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "atod/v1/env.grpc.pb.h"
#include "grpcpp/channel.h"
#include "services/envs/env_caller.h"

namespace atod::envs {

struct EnvClientOptions {
  // From the call to its last retry; then UNAVAILABLE or DEADLINE_EXCEEDED.
  absl::Duration timeout = absl::Seconds(120);
  absl::Duration min_backoff = absl::Milliseconds(50);
  absl::Duration max_backoff = absl::Seconds(1);
};

// Environments over EnvService, episodes spread over the servers in turn. The
// client knows the actions of its episodes: when a server is gone, or has
// forgotten an episode, it rebuilds it on the next server by replaying them,
// and the caller notices nothing but the time. Episode ids are the client's
// own. `done` runs on gRPC threads. Thread-safe; calls on one episode one
// after the other.
class EnvClient : public EnvCaller {
 public:
  // One channel a server, at least one.
  EnvClient(std::vector<std::shared_ptr<grpc::Channel>> channels,
            EnvClientOptions options = {});
  // Calls under way end with CANCELLED; returns when the last one has.
  ~EnvClient() override;

  // Waits for a server until the time-out. FAILED_PRECONDITION when servers
  // that answer do not hold the same tasks.
  absl::StatusOr<EnvDescription> Describe(const std::string& env) override;
  void Reset(const ResetRequest& request,
             std::function<void(absl::StatusOr<ResetResult>)> done) override;
  void Step(const std::string& episode_id, uint32_t turn_index,
            const std::string& model_text,
            std::function<void(absl::StatusOr<StepResult>)> done) override;
  // The same with an action as such.
  void StepAction(const std::string& episode_id, uint32_t turn_index,
                  const std::string& action,
                  std::function<void(absl::StatusOr<StepResult>)> done);
  void Close(const std::string& episode_id) override;

 private:
  class Call;
  struct EpisodeState;

  void StartStep(const std::string& episode_id, v1::StepRequest request,
                 std::function<void(absl::StatusOr<StepResult>)> done);
  void Launch(std::shared_ptr<Call> call);
  size_t NextServer();

  const EnvClientOptions options_;
  std::vector<std::unique_ptr<v1::EnvService::Stub>> stubs_;

  absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t next_server_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<std::string, std::shared_ptr<EpisodeState>> episodes_
      ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<std::shared_ptr<Call>> calls_ ABSL_GUARDED_BY(mutex_);
  int closing_ ABSL_GUARDED_BY(mutex_) = 0;  // Close RPCs under way
};

}  // namespace atod::envs
