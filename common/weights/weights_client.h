#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "atod/v1/learner.grpc.pb.h"
#include "common/weights/version_store.h"
#include "grpcpp/channel.h"

namespace atod::weights {

// The tensors of a manifest when it is well formed: known codec and dtypes,
// bytes that follow from the shapes, no gaps, at most `max_bytes` together.
absl::StatusOr<WeightSnapshot> SnapshotFromManifest(
    const v1::Manifest& manifest, uint64_t max_bytes);

// Follows the learner's weights on a thread of its own: hears of each version,
// fetches it into a side buffer, verifies every checksum and hands it over. A
// damaged stream is refused and asked for again, a broken one goes on where it
// broke, and a learner that is away is waited for.
class WeightsClient {
 public:
  struct Options {
    std::string holder;     // name of this process
    std::string arch_hash;  // other architectures are refused; empty: any
    uint64_t max_bytes = uint64_t{1} << 40;
    absl::Duration retry_min = absl::Milliseconds(50);
    absl::Duration retry_max = absl::Seconds(2);
    absl::Duration fetch_timeout = absl::Minutes(30);
    // Hears why a stream was refused, on the client's thread; may be null.
    std::function<void(const absl::Status&)> on_refused = nullptr;
  };
  // Runs on the client's thread. A version with the weights of the one before
  // comes with the same snapshot pointer.
  using OnWeights = std::function<void(PublishedWeights)>;

  WeightsClient(std::shared_ptr<grpc::Channel> channel, Options options,
                OnWeights on_weights);
  // Cancels what is under way and joins.
  ~WeightsClient();

 private:
  void Run();
  // One life of the subscription.
  absl::Status Follow();
  absl::Status Deliver(const v1::Manifest& manifest);
  absl::Status Refuse(absl::Status status);
  // Appends the stream from snapshot.data.size() on; stops at `total`.
  absl::Status Fetch(WeightSnapshot& snapshot, uint64_t total);
  // False when the client stops.
  bool Pause(absl::Duration wait);
  void SetContext(grpc::ClientContext* context);

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::WeightsService::Stub> stub_;
  const Options options_;
  const OnWeights on_weights_;
  PublishedWeights held_;  // of the thread
  absl::Notification stopping_;
  absl::Mutex mutex_;
  // The calls that the destructor cancels.
  grpc::ClientContext* subscription_ ABSL_GUARDED_BY(mutex_) = nullptr;
  grpc::ClientContext* fetch_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::thread thread_;  // last: uses all of the above
};

}  // namespace atod::weights
