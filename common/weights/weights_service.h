#pragma once

#include <cstdint>
#include <string>
#include <unordered_set>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "atod/v1/learner.grpc.pb.h"
#include "common/weights/version_store.h"
#include "grpcpp/generic/async_generic_service.h"

namespace atod::weights {

// The generic method behind WeightsService; see learner.proto.
inline constexpr char kFetchMethod[] = "/atod.v1.WeightsService/Fetch";
// Bytes of a chunk: the size at which gRPC moves most per second.
inline constexpr size_t kFetchChunk = 1 << 20;

// Proto form of a version and of the stream that carries it.
v1::WeightVersion VersionProto(const PublishedWeights& weights);
v1::Manifest ManifestProto(const PublishedWeights& weights);
// What Manifest.xxh3 must be.
uint64_t ManifestChecksum(v1::Manifest manifest);

// Subscribe. A subscriber that is slow skips versions: it always
// gets the newest next.
class WeightsServiceImpl final : public v1::WeightsService::CallbackService {
 public:
  // `store` is not owned.
  explicit WeightsServiceImpl(VersionStore& store);
  ~WeightsServiceImpl() override;

  grpc::ServerWriteReactor<v1::Manifest>* Subscribe(
      grpc::CallbackServerContext* context,
      const v1::SubscribeRequest* request) override;

 private:
  class Subscriber;

  void OfferToAll();

  VersionStore& store_;
  absl::Mutex mutex_;
  std::unordered_set<Subscriber*> subscribers_ ABSL_GUARDED_BY(mutex_);
};

// Fetch: raw chunks straight from the snapshot's memory. A server has one
// generic service, so every other unknown method ends here as UNIMPLEMENTED.
class WeightsFetchService final : public grpc::CallbackGenericService {
 public:
  // `store` is not owned.
  explicit WeightsFetchService(const VersionStore& store) : store_(store) {}

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override;

 private:
  const VersionStore& store_;
};

}  // namespace atod::weights
