#pragma once

#include <unordered_set>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "atod/v1/env.grpc.pb.h"
#include "services/envs/env_metrics.h"
#include "services/envs/episode_table.h"

namespace atod::envs {

// EnvService over an EpisodeTable. Every call runs on the gRPC thread that
// brings it: a turn takes microseconds. Thread-safe.
class EnvServiceImpl final : public v1::EnvService::CallbackService {
 public:
  // Neither is owned; `metrics` may be null.
  EnvServiceImpl(EpisodeTable& table, EnvMetrics* metrics)
      : table_(table), metrics_(metrics) {}

  // The calls as plain functions.
  absl::Status Describe(const v1::DescribeRequest& request,
                        v1::DescribeReply& reply);
  absl::Status GetTask(const v1::GetTaskRequest& request, v1::Task& reply);
  absl::Status Reset(const v1::ResetRequest& request, v1::ResetReply& reply);
  absl::Status Step(const v1::StepRequest& request, v1::StepReply& reply);
  absl::Status KeepAlive(const v1::KeepAliveRequest& request,
                         v1::KeepAliveReply& reply);
  absl::Status Close(const v1::CloseRequest& request, v1::CloseReply& reply);
  // One call of a Session; errors travel in the reply.
  v1::EnvReply Answer(const v1::EnvRequest& request);

  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const v1::DescribeRequest* request,
                                     v1::DescribeReply* reply) override;
  grpc::ServerUnaryReactor* GetTask(grpc::CallbackServerContext* context,
                                    const v1::GetTaskRequest* request,
                                    v1::Task* reply) override;
  grpc::ServerUnaryReactor* Reset(grpc::CallbackServerContext* context,
                                  const v1::ResetRequest* request,
                                  v1::ResetReply* reply) override;
  grpc::ServerUnaryReactor* Step(grpc::CallbackServerContext* context,
                                 const v1::StepRequest* request,
                                 v1::StepReply* reply) override;
  grpc::ServerUnaryReactor* KeepAlive(grpc::CallbackServerContext* context,
                                      const v1::KeepAliveRequest* request,
                                      v1::KeepAliveReply* reply) override;
  grpc::ServerUnaryReactor* Close(grpc::CallbackServerContext* context,
                                  const v1::CloseRequest* request,
                                  v1::CloseReply* reply) override;
  grpc::ServerBidiReactor<v1::EnvRequest, v1::EnvReply>* Session(
      grpc::CallbackServerContext* context) override;

  // Ends all sessions with UNAVAILABLE, new ones at once: the server drains.
  void EndSessions();

 private:
  class SessionReactor;

  grpc::ServerUnaryReactor* Finish(grpc::CallbackServerContext* context,
                                   const absl::Status& status);
  void Count(const absl::Status& status);

  EpisodeTable& table_;
  EnvMetrics* const metrics_;
  absl::Mutex mutex_;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  std::unordered_set<SessionReactor*> sessions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace atod::envs
