#include "common/weights/weights_client.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/rpc/channel.h"
#include "common/rpc/rpc_status.h"
#include "common/weights/weights_service.h"
#include "grpcpp/client_context.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/support/byte_buffer.h"

namespace atod::weights {
namespace {

uint64_t DtypeBytes(const std::string& dtype) {
  if (dtype == "F32") return 4;
  if (dtype == "BF16" || dtype == "F16") return 2;
  return 0;
}

absl::Status Malformed(std::string what) {
  return absl::DataLossError(absl::StrCat("weight manifest: ", what));
}

// One Fetch: appends chunks to `data`, never past `total`.
class FetchCall final
    : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  FetchCall(std::string& data, uint64_t total) : data_(data), total_(total) {}

  absl::Status Run(grpc::GenericStub& stub, grpc::ClientContext& context,
                   const v1::FetchRequest& request) {
    bool own = false;
    grpc::SerializationTraits<v1::FetchRequest>::Serialize(request, &request_,
                                                           &own);
    context_ = &context;
    stub.PrepareBidiStreamingCall(&context, kFetchMethod, grpc::StubOptions(),
                                  this);
    StartWriteLast(&request_, grpc::WriteOptions());
    StartRead(&chunk_);
    StartCall();
    done_.WaitForNotification();
    if (!damage_.ok()) return damage_;
    return rpc::FromGrpc(status_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    std::vector<grpc::Slice> slices;
    if (!chunk_.Dump(&slices).ok()) return Refuse("unreadable chunk");
    for (const grpc::Slice& slice : slices) {
      if (slice.size() > total_ - data_.size()) {
        return Refuse(absl::StrCat("expected ", total_, " bytes, found more"));
      }
      data_.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    StartRead(&chunk_);
  }

  void OnDone(const grpc::Status& status) override {
    status_ = status;
    done_.Notify();
  }

 private:
  void Refuse(std::string what) {
    damage_ = absl::DataLossError(absl::StrCat("weight stream: ", what));
    context_->TryCancel();
  }

  std::string& data_;
  const uint64_t total_;
  grpc::ClientContext* context_ = nullptr;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer chunk_;
  absl::Status damage_;
  grpc::Status status_;
  absl::Notification done_;
};

}  // namespace

absl::StatusOr<WeightSnapshot> SnapshotFromManifest(
    const v1::Manifest& manifest, uint64_t max_bytes) {
  if (manifest.codec() != v1::Manifest::FULL) {
    return Malformed(
        absl::StrCat("codec: found ", manifest.codec(), ", expected FULL"));
  }
  if (manifest.total_bytes() > max_bytes) {
    return Malformed(absl::StrCat("total_bytes: found ", manifest.total_bytes(),
                                  ", expected at most ", max_bytes));
  }
  WeightSnapshot snapshot;
  uint64_t end = 0;
  for (const v1::TensorEntry& entry : manifest.tensors()) {
    const uint64_t element = DtypeBytes(entry.dtype());
    if (element == 0) {
      return Malformed(absl::StrCat(entry.name(), ": found dtype ",
                                    entry.dtype(), ", expected F32 or BF16"));
    }
    uint64_t bytes = element;
    for (const int64_t dim : entry.shape()) {
      if (dim <= 0 || static_cast<uint64_t>(dim) > max_bytes / bytes) {
        return Malformed(absl::StrCat(entry.name(), ": found dimension ", dim,
                                      ", expected a positive one that fits ",
                                      max_bytes, " bytes"));
      }
      bytes *= static_cast<uint64_t>(dim);
    }
    if (entry.bytes() != bytes || entry.offset() != end) {
      return Malformed(absl::StrCat(entry.name(), ": found ", entry.bytes(),
                                    " bytes at ", entry.offset(), ", expected ",
                                    bytes, " at ", end));
    }
    end += bytes;
    if (end > manifest.total_bytes()) break;
    snapshot.tensors.push_back({entry.name(),
                                entry.dtype(),
                                {entry.shape().begin(), entry.shape().end()},
                                entry.bytes(),
                                entry.offset(),
                                entry.xxh3()});
  }
  if (end != manifest.total_bytes()) {
    return Malformed(absl::StrCat("total_bytes: found ", manifest.total_bytes(),
                                  ", expected the tensors' ", end));
  }
  snapshot.root_hash = manifest.version().root_hash();
  return snapshot;
}

WeightsClient::WeightsClient(std::shared_ptr<grpc::Channel> channel,
                             Options options, OnWeights on_weights)
    : channel_(std::move(channel)),
      stub_(v1::WeightsService::NewStub(channel_)),
      options_(std::move(options)),
      on_weights_(std::move(on_weights)),
      thread_([this] { Run(); }) {}

WeightsClient::~WeightsClient() {
  stopping_.Notify();
  {
    absl::MutexLock lock(&mutex_);
    if (subscription_ != nullptr) subscription_->TryCancel();
    if (fetch_ != nullptr) fetch_->TryCancel();
  }
  thread_.join();
}

bool WeightsClient::Pause(absl::Duration wait) {
  return !stopping_.WaitForNotificationWithTimeout(wait);
}

void WeightsClient::Run() {
  absl::Duration wait = options_.retry_min;
  while (!stopping_.HasBeenNotified()) {
    const auto before = held_.snapshot;
    const absl::Status status = Follow();
    if (stopping_.HasBeenNotified()) return;
    // A subscription that brought weights was a good one.
    if (held_.snapshot != before) wait = options_.retry_min;
    spdlog::warn("weights: subscription ended, will be repeated: {}",
                 status.ToString());
    if (!Pause(wait)) return;
    wait = std::min(2 * wait, options_.retry_max);
  }
}

absl::Status WeightsClient::Follow() {
  grpc::ClientContext context;
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_.HasBeenNotified()) return absl::CancelledError("stopping");
    subscription_ = &context;
  }
  v1::SubscribeRequest request;
  request.set_holder(options_.holder);
  if (held_.snapshot) *request.mutable_held() = VersionProto(held_);
  auto stream = stub_->Subscribe(&context, request);
  v1::Manifest manifest;
  absl::Status delivered;
  while (delivered.ok() && stream->Read(&manifest)) {
    delivered = Deliver(manifest);
  }
  // Asking anew brings the newest manifest again.
  if (!delivered.ok()) context.TryCancel();
  const grpc::Status ended = stream->Finish();
  absl::MutexLock lock(&mutex_);
  subscription_ = nullptr;
  return delivered.ok() ? rpc::FromGrpc(ended) : delivered;
}

absl::Status WeightsClient::Deliver(const v1::Manifest& manifest) {
  if (ManifestChecksum(manifest) != manifest.xxh3()) {
    return Refuse(Malformed(
        absl::StrCat("found checksum ", absl::Hex(ManifestChecksum(manifest)),
                     ", expected ", absl::Hex(manifest.xxh3()))));
  }
  if (!options_.arch_hash.empty() &&
      manifest.arch_hash() != options_.arch_hash) {
    return Refuse(absl::FailedPreconditionError(
        absl::StrCat("weight manifest: arch_hash: found ", manifest.arch_hash(),
                     ", expected ", options_.arch_hash)));
  }
  PublishedWeights next{.incarnation = manifest.version().incarnation(),
                        .number = manifest.version().number(),
                        .arch_hash = manifest.arch_hash(),
                        .snapshot = held_.snapshot,
                        .heard = absl::Now()};
  if (!held_.snapshot ||
      held_.snapshot->root_hash != manifest.version().root_hash()) {
    absl::StatusOr<WeightSnapshot> snapshot =
        SnapshotFromManifest(manifest, options_.max_bytes);
    if (!snapshot.ok()) return Refuse(snapshot.status());
    absl::Status status = Fetch(*snapshot, manifest.total_bytes());
    if (status.ok()) status = VerifySnapshot(*snapshot);
    if (absl::IsDataLoss(status)) return Refuse(status);
    ATOD_RETURN_IF_ERROR(status);
    next.snapshot =
        std::make_shared<const WeightSnapshot>(*std::move(snapshot));
  }
  held_ = next;
  on_weights_(std::move(next));
  return absl::OkStatus();
}

absl::Status WeightsClient::Refuse(absl::Status status) {
  if (options_.on_refused) options_.on_refused(status);
  return status;
}

absl::Status WeightsClient::Fetch(WeightSnapshot& snapshot, uint64_t total) {
  try {
    snapshot.data.reserve(total);
  } catch (const std::exception& e) {
    return absl::ResourceExhaustedError(
        absl::StrCat("weights of ", total, " bytes: ", e.what()));
  }
  grpc::GenericStub stub(channel_);
  absl::Duration wait = options_.retry_min;
  while (true) {
    v1::FetchRequest request;
    request.set_root_hash(snapshot.root_hash);
    request.set_from_offset(snapshot.data.size());
    grpc::ClientContext context;
    rpc::SetTimeout(context, options_.fetch_timeout);
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_.HasBeenNotified()) return absl::CancelledError("stopping");
      fetch_ = &context;
    }
    const absl::Status status =
        FetchCall(snapshot.data, total).Run(stub, context, request);
    {
      absl::MutexLock lock(&mutex_);
      fetch_ = nullptr;
    }
    const bool progress = snapshot.data.size() > request.from_offset();
    if (status.ok() || absl::IsDataLoss(status)) return status;
    // A stream that broke on the way goes on where it broke. One that gives
    // nothing, also because other weights came meanwhile, is left to the next
    // subscription.
    if (!progress) return status;
    spdlog::warn("weights: fetch goes on at {} of {} bytes: {}",
                 snapshot.data.size(), total, status.ToString());
    if (!Pause(wait)) return absl::CancelledError("stopping");
  }
}

}  // namespace atod::weights
