#include "common/weights/weights_service.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"

namespace atod::weights {

v1::WeightVersion VersionProto(const PublishedWeights& weights) {
  v1::WeightVersion version;
  version.set_incarnation(weights.incarnation);
  version.set_number(weights.number);
  version.set_root_hash(weights.snapshot->root_hash);
  return version;
}

v1::Manifest ManifestProto(const PublishedWeights& weights) {
  v1::Manifest manifest;
  *manifest.mutable_version() = VersionProto(weights);
  manifest.set_codec(v1::Manifest::FULL);
  manifest.set_arch_hash(weights.arch_hash);
  manifest.set_total_bytes(weights.snapshot->data.size());
  for (const TensorEntry& tensor : weights.snapshot->tensors) {
    v1::TensorEntry& entry = *manifest.add_tensors();
    entry.set_name(tensor.name);
    entry.set_dtype(tensor.dtype);
    entry.mutable_shape()->Add(tensor.shape.begin(), tensor.shape.end());
    entry.set_bytes(tensor.bytes);
    entry.set_offset(tensor.offset);
    entry.set_xxh3(tensor.xxh3);
  }
  manifest.set_xxh3(ManifestChecksum(manifest));
  return manifest;
}

uint64_t ManifestChecksum(v1::Manifest manifest) {
  manifest.clear_xxh3();
  return TensorChecksum(manifest.SerializeAsString());
}

// One subscriber's stream. At most one write is under way; when it is done,
// whatever is newest by then follows.
class WeightsServiceImpl::Subscriber final
    : public grpc::ServerWriteReactor<v1::Manifest> {
 public:
  explicit Subscriber(WeightsServiceImpl& service) : service_(service) {}

  void Offer() {
    absl::MutexLock lock(&mutex_);
    MaybeWrite();
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) return End();
    MaybeWrite();
  }

  void OnCancel() override {
    absl::MutexLock lock(&mutex_);
    End();
  }

  void OnDone() override {
    {
      absl::MutexLock lock(&service_.mutex_);
      service_.subscribers_.erase(this);
    }
    delete this;
  }

 private:
  void MaybeWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || ended_) return;
    const auto newest = service_.store_.Newest();
    if (!newest.has_value() || newest->snapshot == sent_) return;
    sent_ = newest->snapshot;
    manifest_ = ManifestProto(*newest);
    writing_ = true;
    StartWrite(&manifest_);
  }
  void End() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!std::exchange(ended_, true)) {
      Finish(grpc::Status(grpc::StatusCode::CANCELLED, "subscriber left"));
    }
  }

  WeightsServiceImpl& service_;
  absl::Mutex mutex_;
  v1::Manifest manifest_ ABSL_GUARDED_BY(mutex_);
  // What was offered last, as an identity only.
  std::shared_ptr<const WeightSnapshot> sent_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

WeightsServiceImpl::WeightsServiceImpl(VersionStore& store) : store_(store) {
  store_.SetListener([this] { OfferToAll(); });
}

WeightsServiceImpl::~WeightsServiceImpl() { store_.SetListener(nullptr); }

void WeightsServiceImpl::OfferToAll() {
  // Subscribers leave under this lock, so none dies during the walk.
  absl::MutexLock lock(&mutex_);
  for (Subscriber* subscriber : subscribers_) subscriber->Offer();
}

grpc::ServerWriteReactor<v1::Manifest>* WeightsServiceImpl::Subscribe(
    grpc::CallbackServerContext*, const v1::SubscribeRequest*) {
  auto* subscriber = new Subscriber(*this);
  {
    absl::MutexLock lock(&mutex_);
    subscribers_.insert(subscriber);
  }
  subscriber->Offer();
  return subscriber;
}

namespace {

class FetchReactor final : public grpc::ServerGenericBidiReactor {
 public:
  explicit FetchReactor(const VersionStore& store) : store_(store) {
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      return Finish(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                                 "Fetch without a FetchRequest"));
    }
    v1::FetchRequest request;
    const grpc::Status parsed =
        grpc::SerializationTraits<v1::FetchRequest>::Deserialize(&request_,
                                                                 &request);
    if (!parsed.ok()) return Finish(parsed);
    const auto newest = store_.Newest();
    if (!newest.has_value() ||
        newest->snapshot->root_hash != request.root_hash()) {
      if (request.from_offset() > 0) {
        return Finish(grpc::Status(
            grpc::StatusCode::FAILED_PRECONDITION,
            "from_offset: found " + std::to_string(request.from_offset()) +
                " bytes of weights " + request.root_hash() +
                ", which are not held, expected 0"));
      }
      return Finish(
          grpc::Status(grpc::StatusCode::NOT_FOUND,
                       "root_hash: " + request.root_hash() + " is not held"));
    }
    snapshot_ = newest->snapshot;
    if (request.from_offset() > snapshot_->data.size()) {
      return Finish(grpc::Status(
          grpc::StatusCode::OUT_OF_RANGE,
          "from_offset: found " + std::to_string(request.from_offset()) +
              ", expected at most " + std::to_string(snapshot_->data.size())));
    }
    offset_ = request.from_offset();
    WriteNext();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      return Finish(grpc::Status(grpc::StatusCode::CANCELLED, "peer left"));
    }
    WriteNext();
  }

  void OnDone() override { delete this; }

 private:
  void WriteNext() {
    const size_t size =
        std::min<size_t>(kFetchChunk, snapshot_->data.size() - offset_);
    if (size == 0) return Finish(grpc::Status::OK);
    // The transport may keep the slice beyond this call: it holds the snapshot.
    auto* owner = new std::shared_ptr<const WeightSnapshot>(snapshot_);
    const grpc::Slice slice(
        const_cast<char*>(snapshot_->data.data() + offset_), size,
        [](void* o) {
          delete static_cast<std::shared_ptr<const WeightSnapshot>*>(o);
        },
        owner);
    offset_ += size;
    chunk_ = grpc::ByteBuffer(&slice, 1);
    StartWrite(&chunk_);
  }

  const VersionStore& store_;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer chunk_;
  std::shared_ptr<const WeightSnapshot> snapshot_;
  size_t offset_ = 0;
};

class UnknownMethod final : public grpc::ServerGenericBidiReactor {
 public:
  UnknownMethod() {
    Finish(grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "unknown method"));
  }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerGenericBidiReactor* WeightsFetchService::CreateReactor(
    grpc::GenericCallbackServerContext* context) {
  if (context->method() != kFetchMethod) return new UnknownMethod;
  return new FetchReactor(store_);
}

}  // namespace atod::weights
