#include "services/teacher/teacher_pool.h"

#include <utility>

#include "absl/hash/hash.h"

namespace atod::teacher {

TeacherPool::TeacherPool(
    const std::vector<std::shared_ptr<grpc::Channel>>& channels,
    TeacherClient::Options options) {
  options.known_weights = std::make_shared<KnownWeights>();
  options.lone = channels.size() == 1;
  for (const std::shared_ptr<grpc::Channel>& channel : channels)
    clients_.push_back(std::make_unique<TeacherClient>(channel, options));
}

TeacherClient& TeacherPool::Choose(const TeacherRequest& request) {
  const size_t size = clients_.size();
  const bool sticks = !request.session.empty();
  const size_t first = sticks ? absl::HashOf(request.session) % size : 0;
  TeacherClient* best = nullptr;
  size_t least = 0;
  for (size_t i = 0; i < size; ++i) {
    TeacherClient& client = *clients_[(first + i) % size];
    const TeacherClient::Load load = client.load();
    if (!load.connected || (best != nullptr && load.waiting >= least)) continue;
    if (sticks) return client;
    best = &client;
    least = load.waiting;
  }
  return best != nullptr ? *best : *clients_[first];
}

void TeacherPool::Score(
    TeacherRequest request,
    std::function<void(absl::StatusOr<TeacherReply>)> done) {
  Choose(request).Score(std::move(request), std::move(done));
}

}  // namespace atod::teacher
