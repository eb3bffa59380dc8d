#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "services/teacher/teacher_caller.h"
#include "services/teacher/teacher_client.h"

namespace atod::teacher {

// Several teacher processes that serve the same models as one. A request goes
// to the one with the least to do among those that are connected; requests of
// one session to one of them, for as long as it is. What a teacher that is gone
// did not answer fails with UNAVAILABLE, so that the caller, who asks again,
// reaches another; a lone teacher is waited for instead. Thread-safe.
class TeacherPool final : public TeacherCaller {
 public:
  // One channel a process, at least one. `options.lone` is set here.
  TeacherPool(const std::vector<std::shared_ptr<grpc::Channel>>& channels,
              TeacherClient::Options options);

  void Score(TeacherRequest request,
             std::function<void(absl::StatusOr<TeacherReply>)> done) override;

 private:
  TeacherClient& Choose(const TeacherRequest& request);

  std::vector<std::unique_ptr<TeacherClient>> clients_;
};

}  // namespace atod::teacher
