#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "atod/v1/teacher.grpc.pb.h"
#include "common/metrics/metrics.h"
#include "services/teacher/batcher.h"

namespace atod::teacher {

// TeacherService over one model. Whole requests are refused for another model
// or hash, a senseless temperature, or hostile sizes; items fail one by one.
// Thread-safe.
class TeacherServiceImpl final : public v1::TeacherService::CallbackService {
 public:
  struct Options {
    uint32_t max_items = 4096;        // of a request
    uint64_t max_tokens = 1 << 20;    // of a request
    uint32_t stream_requests = 1024;  // in flight on one stream
  };

  // One model, under its own name; `batcher` is not owned.
  struct Model {
    v1::ModelInfo info;
    Batcher* batcher;
  };

  // At least one model, with different names.
  TeacherServiceImpl(std::vector<Model> models, Options options,
                     metrics::Registry& registry);

  // What both RPCs do: calls `done` exactly once, on this or on the batcher's
  // thread, with the reply or with why the request failed as a whole.
  void Handle(const v1::ScoreRequest& request,
              std::function<void(absl::Status, v1::ScoreReply)> done);

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsReply* reply) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const v1::ScoreRequest* request,
                                  v1::ScoreReply* reply) override;
  grpc::ServerBidiReactor<v1::ScoreRequest, v1::ScoreReply>* ScoreStream(
      grpc::CallbackServerContext* context) override;

 private:
  class Stream;

  absl::StatusOr<const Model*> ModelOf(const std::string& name) const;
  absl::Status CheckRequest(const v1::ScoreRequest& request,
                            const v1::ModelInfo& model) const;
  void CountAnswer(const absl::Status& status);

  const std::vector<Model> models_;
  const Options options_;
  metrics::Registry& registry_;
};

}  // namespace atod::teacher
