#include "common/weights/weights_service.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/queue.h"
#include "common/base/rng.h"
#include "common/weights/weights_client.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"

namespace atod::weights {
namespace {

using ::testing::HasSubstr;

// Tensors of the given sizes (in floats) with bytes drawn from `seed`.
std::shared_ptr<WeightSnapshot> MakeSnapshot(
    uint64_t seed, const std::vector<int64_t>& sizes = {3, 700'000, 5}) {
  auto snapshot = std::make_shared<WeightSnapshot>();
  Rng rng(seed);
  for (const int64_t size : sizes) {
    TensorEntry entry;
    entry.name = absl::StrCat("layer.", snapshot->tensors.size());
    entry.dtype = "F32";
    entry.shape = {size};
    entry.bytes = 4 * size;
    entry.offset = snapshot->data.size();
    for (int64_t i = 0; i < 4 * size; ++i) {
      snapshot->data.push_back(static_cast<char>(rng.Next()));
    }
    entry.xxh3 =
        TensorChecksum(std::string_view(snapshot->data).substr(entry.offset));
    snapshot->tensors.push_back(entry);
  }
  snapshot->root_hash = ComputeRootHash(snapshot->tensors);
  return snapshot;
}

// A learner's weight services on a port of their own.
class Learner {
 public:
  explicit Learner(int port = 0) { Start(port); }
  ~Learner() { Stop(); }

  void Start(int port) {
    service_ = std::make_unique<WeightsServiceImpl>(store);
    fetch_ = std::make_unique<WeightsFetchService>(stream_store);
    grpc::ServerBuilder builder;
    builder.AddListeningPort(absl::StrCat("127.0.0.1:", port),
                             grpc::InsecureServerCredentials(), &this->port);
    builder.RegisterService(service_.get());
    builder.RegisterCallbackGenericService(fetch_.get());
    server_ = builder.BuildAndStart();
  }
  void Stop() {
    if (server_) server_->Shutdown(absl::ToChronoTime(absl::Now()));
    server_.reset();
    service_.reset();
  }
  std::shared_ptr<grpc::Channel> Connect() const {
    grpc::ChannelArguments args;
    args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 20);
    args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 20);
    args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 50);
    return grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", port),
                                     grpc::InsecureChannelCredentials(), args);
  }
  void Publish(uint64_t number, std::shared_ptr<const WeightSnapshot> s) {
    Publish(number, s, s);
  }
  // The manifest of one snapshot with the bytes of another.
  void Publish(uint64_t number, std::shared_ptr<const WeightSnapshot> manifest,
               std::shared_ptr<const WeightSnapshot> stream) {
    stream_store.Publish({1, number, "arch", std::move(stream)});
    store.Publish({1, number, "arch", std::move(manifest)});
  }

  VersionStore stream_store;
  VersionStore store;
  int port = 0;

 private:
  std::unique_ptr<WeightsServiceImpl> service_;
  std::unique_ptr<WeightsFetchService> fetch_;
  std::unique_ptr<grpc::Server> server_;
};

struct Holder {
  explicit Holder(Learner& learner, const std::string& arch = "arch")
      : client(learner.Connect(),
               {.holder = "rollout-0",
                .arch_hash = arch,
                .retry_min = absl::Milliseconds(1),
                .retry_max = absl::Milliseconds(20),
                .on_refused =
                    [this](const absl::Status& why) {
                      refused.Push(std::string(why.message()));
                    }},
               [this](PublishedWeights w) { got.Push(std::move(w)); }) {}
  Queue<PublishedWeights> got;
  Queue<std::string> refused;
  WeightsClient client;
};

TEST(WeightsService, LateJoinerGetsTheNewestVersionByteForByte) {
  Learner learner;
  learner.Publish(0, MakeSnapshot(1));
  const auto newest = MakeSnapshot(2);
  learner.Publish(1, newest);
  Holder holder(learner);
  const PublishedWeights got = *holder.got.Pop();
  EXPECT_EQ(got.number, 1);
  EXPECT_EQ(got.incarnation, 1);
  EXPECT_EQ(got.snapshot->root_hash, newest->root_hash);
  EXPECT_EQ(got.snapshot->data, newest->data);
  EXPECT_EQ(got.snapshot->tensors.size(), newest->tensors.size());
}

TEST(WeightsService, SubscriberHearsOfEachNewVersion) {
  Learner learner;
  Holder holder(learner);
  for (uint64_t number = 0; number < 5; ++number) {
    const auto snapshot = MakeSnapshot(number, {100});
    learner.Publish(number, snapshot);
    const PublishedWeights got = *holder.got.Pop();
    EXPECT_EQ(got.number, number);
    EXPECT_EQ(got.snapshot->data, snapshot->data);
  }
}

TEST(WeightsService, EqualWeightsUnderANewNumberAreNotFetchedAgain) {
  Learner learner;
  learner.Publish(0, MakeSnapshot(1));
  Holder holder(learner);
  const PublishedWeights first = *holder.got.Pop();
  learner.Publish(1, MakeSnapshot(1));
  const PublishedWeights second = *holder.got.Pop();
  EXPECT_EQ(second.number, 1);
  EXPECT_EQ(second.snapshot, first.snapshot);
}

TEST(WeightsService, FlippedByteIsRefusedAndAskedForAgain) {
  Learner learner;
  auto damaged = MakeSnapshot(1);
  damaged->data[2'000'000] ^= 1;
  learner.Publish(0, damaged);
  Holder holder(learner);
  // Refusals go on as long as the damage does; the sound version arrives.
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(*holder.refused.Pop(), HasSubstr("layer.1: found checksum"));
  }
  EXPECT_EQ(holder.got.size(), 0);
  const auto sound = MakeSnapshot(1);
  learner.Publish(1, sound);
  // Bytes are fetched by hash, so the repeated request for version 0 may
  // already be answered with the sound copy; damage never arrives.
  uint64_t number = 0;
  do {
    const PublishedWeights got = *holder.got.Pop();
    EXPECT_EQ(got.snapshot->data, sound->data);
    number = got.number;
  } while (number != 1);
}

TEST(WeightsService, StreamShorterOrLongerThanItsManifestIsRefused) {
  for (const int wrong : {-1, +1}) {
    Learner learner;
    auto bad = MakeSnapshot(1);
    bad->data.resize(bad->data.size() + wrong);
    learner.Publish(0, MakeSnapshot(1), bad);
    Holder holder(learner);
    EXPECT_THAT(*holder.refused.Pop(), HasSubstr("weight stream"));
    EXPECT_EQ(holder.got.size(), 0);
    learner.Publish(1, MakeSnapshot(2));
    EXPECT_EQ(holder.got.Pop()->number, 1);
  }
}

TEST(WeightsService, OtherArchitectureIsRefused) {
  Learner learner;
  learner.Publish(0, MakeSnapshot(1));
  Holder holder(learner, "another");
  EXPECT_THAT(*holder.refused.Pop(), HasSubstr("arch_hash"));
  EXPECT_EQ(holder.got.size(), 0);
}

TEST(WeightsService, ClientComesBackAfterTheLearnerDied) {
  Learner learner;
  learner.Publish(0, MakeSnapshot(1));
  Holder holder(learner);
  EXPECT_EQ(holder.got.Pop()->number, 0);
  const int port = learner.port;
  learner.Stop();
  learner.Start(port);
  learner.Publish(1, MakeSnapshot(2));
  // The renewed subscription may bring version 0 once more.
  PublishedWeights got = *holder.got.Pop();
  if (got.number == 0) got = *holder.got.Pop();
  EXPECT_EQ(got.number, 1);
}

TEST(WeightsService, ClientWithoutALearnerStopsAtOnce) {
  Learner learner;
  learner.Stop();
  Holder holder(learner);
}

TEST(WeightsService, AStreamOfOtherWeightsDoesNotGoOn) {
  Learner learner;
  const auto first = MakeSnapshot(1, {100}), second = MakeSnapshot(2, {100});
  learner.Publish(0, first);
  const auto fetch = [&](const std::string& hash, uint64_t from) {
    v1::FetchRequest request;
    request.set_root_hash(hash);
    request.set_from_offset(from);
    grpc::GenericStub stub(learner.Connect());
    grpc::ClientContext context;
    bool own = false;
    grpc::ByteBuffer bytes, reply;
    EXPECT_TRUE(grpc::SerializationTraits<v1::FetchRequest>::Serialize(
                    request, &bytes, &own)
                    .ok());
    absl::Notification done;
    grpc::Status status;
    stub.UnaryCall(&context, kFetchMethod, {}, &bytes, &reply,
                   [&](grpc::Status s) {
                     status = std::move(s);
                     done.Notify();
                   });
    done.WaitForNotification();
    return status;
  };
  EXPECT_TRUE(fetch(first->root_hash, 100).ok());
  learner.Publish(1, second);
  const grpc::Status refused = fetch(first->root_hash, 100);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(refused.error_message(), HasSubstr(first->root_hash));
  EXPECT_EQ(fetch(first->root_hash, 0).error_code(),
            grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(fetch(second->root_hash, 401).error_code(),
            grpc::StatusCode::OUT_OF_RANGE);
}

TEST(SnapshotFromManifest, RefusesWhatDoesNotFit) {
  const v1::Manifest good =
      ManifestProto({1, 0, "arch", MakeSnapshot(1, {2, 3})});
  EXPECT_TRUE(SnapshotFromManifest(good, 1 << 20).ok());

  const auto refused = [&](auto&& change, uint64_t max = 1 << 20) {
    v1::Manifest bad = good;
    change(bad);
    return std::string(SnapshotFromManifest(bad, max).status().message());
  };
  const auto none = [](v1::Manifest&) {};
  EXPECT_THAT(refused(none, 19), HasSubstr("total_bytes"));
  EXPECT_THAT(refused([](auto& m) { m.set_total_bytes(24); }),
              HasSubstr("total_bytes"));
  EXPECT_THAT(refused([](auto& m) { m.mutable_tensors(1)->set_offset(4); }),
              HasSubstr("layer.1"));
  EXPECT_THAT(refused([](auto& m) { m.mutable_tensors(1)->set_bytes(8); }),
              HasSubstr("layer.1"));
  EXPECT_THAT(refused([](auto& m) { m.mutable_tensors(0)->set_dtype("I8"); }),
              HasSubstr("dtype I8"));
  EXPECT_THAT(refused([](auto& m) {
                m.mutable_tensors(0)->set_shape(0, int64_t{1} << 62);
              }),
              HasSubstr("dimension"));
  EXPECT_THAT(refused([](auto& m) { m.mutable_tensors(0)->set_shape(0, -2); }),
              HasSubstr("dimension -2"));
}

}  // namespace
}  // namespace atod::weights
