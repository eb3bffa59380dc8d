#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "atod/v1/env.grpc.pb.h"
#include "grpcpp/channel.h"
#include "services/envs/env_caller.h"

namespace atod::envs {

struct EnvServer {
  std::string address;  // as errors name it
  std::shared_ptr<grpc::Channel> channel;
};

// Environments over EnvService, episodes spread over the servers in turn: who
// resets again after an error reaches the next one. Calls are made once; an
// error begins with the server's address. `done` runs on gRPC threads.
// Thread-safe.
class EnvClient : public EnvCaller {
 public:
  // At least one server. A call that is not answered in time ends with
  // DEADLINE_EXCEEDED.
  explicit EnvClient(std::vector<EnvServer> servers,
                     absl::Duration timeout = absl::Seconds(120));
  // Calls under way end with CANCELLED; returns when the last one has.
  ~EnvClient() override;

  // Asks all servers, each for a few seconds at most; those that are away do
  // not count, unless all are. FAILED_PRECONDITION when servers that answer do
  // not hold the same tasks.
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
  struct Server {
    std::string name;  // "environment server ADDRESS"
    std::unique_ptr<v1::EnvService::Stub> stub;
  };

  // The server of an episode and its name there: ids are SERVER/NAME. Null for
  // one that is not of this client.
  const Server* Find(const std::string& episode_id, std::string& name) const;
  void StartStep(const std::string& episode_id, v1::StepRequest request,
                 std::function<void(absl::StatusOr<StepResult>)> done);
  // A call begins and ends; between the two the destructor can cancel it.
  void Begin(grpc::ClientContext& context, absl::Duration timeout);
  void End(grpc::ClientContext& context);

  const absl::Duration timeout_;
  std::vector<Server> servers_;
  std::atomic<uint64_t> next_server_ = 0;

  absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_set<grpc::ClientContext*> calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace atod::envs
