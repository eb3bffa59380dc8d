// A learner whose weight stream is damaged in every way we could think of, a
// real subscriber and a real engine: the engine samples with the right weights,
// to the bit, or goes on with those it had.
#include <unistd.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/log.h"
#include "common/base/queue.h"
#include "common/base/rng.h"
#include "common/checkpoint/safetensors.h"
#include "common/engine/engine.h"
#include "common/model/model_files.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/weights/weights_client.h"
#include "common/weights/weights_service.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod {
namespace {

using ::testing::HasSubstr;
using weights::PublishedWeights;
using weights::WeightSnapshot;

constexpr int kVocab = 12000;  // so that the stream has several chunks

std::string WriteModel(uint64_t seed) {
  model::ModelConfig c;
  c.vocab_size = kVocab;
  c.hidden_size = 64;
  c.intermediate_size = 96;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 16;
  c.max_position_embeddings = 64;
  c.rope_theta = 1e4;
  c.tie_word_embeddings = true;
  const std::string dir =
      absl::StrCat(testing::TempDir(), "/weights_damage.", getpid(), ".", seed);
  EXPECT_TRUE(model::CreateModel(c, "unit", seed, dir).ok());
  return dir;
}

std::shared_ptr<const WeightSnapshot> ReadSnapshot(const std::string& dir) {
  const auto files = OpenSafetensorsDir(dir).value();
  auto snapshot = std::make_shared<WeightSnapshot>();
  for (const TensorView& t : files->tensors()) {
    const std::string_view bytes(reinterpret_cast<const char*>(t.data.data()),
                                 t.data.size());
    snapshot->tensors.push_back({t.name, t.dtype, t.shape, bytes.size(),
                                 snapshot->data.size(),
                                 weights::TensorChecksum(bytes)});
    snapshot->data.append(bytes);
  }
  snapshot->root_hash = weights::ComputeRootHash(snapshot->tensors);
  return snapshot;
}

std::unique_ptr<engine::ModelEngine> OpenEngine(const std::string& dir) {
  engine::EngineOptions options;
  options.max_slots = 4;
  return engine::OpenEngine(dir, options).value();
}

// Tokens and log-probs of a few responses, to the bit.
std::map<uint64_t, std::pair<std::vector<int32_t>, std::vector<float>>> Sample(
    engine::Engine& engine) {
  Rng rng(5);
  for (uint64_t i = 0; i < 6; ++i) {
    engine::EngineRequest r;
    r.id = i;
    for (uint64_t j = 0; j < 3 + i; ++j)
      r.prompt.push_back(static_cast<int32_t>(rng.Below(kVocab)));
    r.sampling.max_tokens = 12;
    r.noise.sample = static_cast<uint32_t>(i);
    EXPECT_TRUE(engine.Enqueue(r).ok());
  }
  std::map<uint64_t, std::pair<std::vector<int32_t>, std::vector<float>>> out;
  while (engine.has_work()) {
    auto finished = engine.Step();
    EXPECT_TRUE(finished.ok()) << finished.status();
    if (!finished.ok()) break;
    for (auto& r : *finished) out[r.id] = {r.tokens, r.logprobs};
  }
  return out;
}

// What a call is answered with.
struct Reply {
  std::vector<std::string> messages;
  grpc::Status status;
};

// Publishes one version. A fault changes the answers of a call; call 0 is the
// first. Where it returns false the call is answered as it should be.
class CorruptLearner final : public grpc::CallbackGenericService {
 public:
  using FetchFault =
      std::function<bool(int call, const v1::FetchRequest&, Reply&)>;
  using ManifestFault = std::function<bool(int call, std::string&)>;

  CorruptLearner(std::shared_ptr<const WeightSnapshot> snapshot,
                 FetchFault fetch_fault, ManifestFault manifest_fault)
      : weights_({1, 7, "", std::move(snapshot)}),
        fetch_fault_(std::move(fetch_fault)),
        manifest_fault_(std::move(manifest_fault)),
        server_(rpc::Listen(
                    {.address = "127.0.0.1:0", .services = {}, .generic = this})
                    .value()) {}
  const std::string& address() const { return server_->address(); }

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    return new Call(*this, context->method() == weights::kFetchMethod);
  }

 private:
  class Call final : public grpc::ServerGenericBidiReactor {
   public:
    Call(CorruptLearner& learner, bool fetch)
        : learner_(learner), fetch_(fetch) {
      StartRead(&request_);
    }
    void OnReadDone(bool ok) override {
      if (!ok) return Finish(grpc::Status::CANCELLED);
      reply_ =
          fetch_ ? learner_.AnswerFetch(request_) : learner_.AnswerSubscribe();
      WriteNext();
    }
    void OnWriteDone(bool ok) override {
      if (!ok) return Finish(grpc::Status::CANCELLED);
      WriteNext();
    }
    void OnDone() override { delete this; }

   private:
    void WriteNext() {
      if (next_ == reply_.messages.size()) return Finish(reply_.status);
      const grpc::Slice slice(reply_.messages[next_++]);
      message_ = grpc::ByteBuffer(&slice, 1);
      StartWrite(&message_);
    }
    CorruptLearner& learner_;
    const bool fetch_;
    grpc::ByteBuffer request_, message_;
    Reply reply_;
    size_t next_ = 0;
  };

  // The stream ends after one manifest, and is asked for again.
  Reply AnswerSubscribe() {
    absl::MutexLock lock(&mutex_);
    std::string manifest = weights::ManifestProto(weights_).SerializeAsString();
    if (manifest_fault_) manifest_fault_(subscribes_, manifest);
    ++subscribes_;
    return {{std::move(manifest)}, grpc::Status::OK};
  }

  Reply AnswerFetch(grpc::ByteBuffer& bytes) {
    v1::FetchRequest request;
    EXPECT_TRUE(grpc::SerializationTraits<v1::FetchRequest>::Deserialize(
                    &bytes, &request)
                    .ok());
    absl::MutexLock lock(&mutex_);
    Reply reply;
    const std::string& data = weights_.snapshot->data;
    for (size_t at = request.from_offset(); at < data.size();
         at += weights::kFetchChunk)
      reply.messages.push_back(data.substr(at, weights::kFetchChunk));
    if (request.root_hash() != weights_.snapshot->root_hash)
      return {{}, grpc::Status(grpc::StatusCode::NOT_FOUND, "root_hash")};
    if (fetch_fault_) fetch_fault_(fetches_, request, reply);
    ++fetches_;
    return reply;
  }

  const PublishedWeights weights_;
  const FetchFault fetch_fault_;
  const ManifestFault manifest_fault_;
  absl::Mutex mutex_;
  int fetches_ ABSL_GUARDED_BY(mutex_) = 0;
  int subscribes_ ABSL_GUARDED_BY(mutex_) = 0;
  const std::unique_ptr<rpc::RpcServer> server_;  // last: calls the above
};

class CorruptWeights : public testing::Test {
 protected:
  CorruptWeights() {
    // Every refusal would be a line.
    spdlog::set_level(spdlog::level::off);
    google::protobuf::SetLogHandler(nullptr);
  }

  // The engine holds `before_`; `after_` is published through `learner`. When
  // the damage is over it must arrive, and nothing else before. Returns what
  // was said of the damage.
  std::vector<std::string> Survive(
      CorruptLearner::FetchFault fetch_fault,
      CorruptLearner::ManifestFault manifest_fault = nullptr) {
    CorruptLearner learner(after_, std::move(fetch_fault),
                           std::move(manifest_fault));
    Queue<PublishedWeights> got;
    Queue<std::string> refused;
    {
      weights::WeightsClient client(
          rpc::Connect(learner.address()).value(),
          {.holder = "rollout-0",
           .arch_hash = "",
           .retry_min = absl::Milliseconds(1),
           .retry_max = absl::Milliseconds(2),
           .on_refused =
               [&](const absl::Status& why) {
                 refused.Push(std::string(why.message()));
               }},
          [&](PublishedWeights w) { got.Push(std::move(w)); });
      const PublishedWeights arrived = *got.Pop();
      EXPECT_EQ(arrived.incarnation, 1u);
      EXPECT_EQ(arrived.number, 7u);
      EXPECT_TRUE(arrived.snapshot->data == after_->data);
      EXPECT_EQ(Sample(*engine_), sampled_before_);
      EXPECT_TRUE(engine_->InstallWeights(*arrived.snapshot).ok());
      EXPECT_EQ(Sample(*engine_), sampled_after_);
    }
    std::vector<std::string> said;
    while (auto why = refused.TryPop()) said.push_back(*std::move(why));
    return said;
  }

  const std::string dir_before_ = WriteModel(1), dir_after_ = WriteModel(2);
  const std::shared_ptr<const WeightSnapshot> before_ =
      ReadSnapshot(dir_before_);
  const std::shared_ptr<const WeightSnapshot> after_ = ReadSnapshot(dir_after_);
  const std::unique_ptr<engine::ModelEngine> engine_ = OpenEngine(dir_before_);
  const std::map<uint64_t, std::pair<std::vector<int32_t>, std::vector<float>>>
      sampled_before_ = Sample(*engine_),
      sampled_after_ = Sample(*OpenEngine(dir_after_));
};

TEST_F(CorruptWeights, TheTwoVersionsSampleDifferently) {
  EXPECT_NE(sampled_before_, sampled_after_);
  EXPECT_GE(after_->data.size(), 2 * weights::kFetchChunk);
}

TEST_F(CorruptWeights, AFlippedBitInAnyTensorIsRefused) {
  Rng rng(1);
  // One in each tensor, then anywhere.
  std::vector<uint64_t> offsets;
  for (const weights::TensorEntry& t : after_->tensors)
    offsets.push_back(t.offset + rng.Below(t.bytes));
  for (int i = 0; i < 20; ++i)
    offsets.push_back(rng.Below(after_->data.size()));
  const auto said =
      Survive([&](int call, const v1::FetchRequest&, Reply& reply) {
        if (call >= static_cast<int>(offsets.size())) return false;
        const uint64_t at = offsets[call];
        reply.messages[at / weights::kFetchChunk][at % weights::kFetchChunk] ^=
            static_cast<char>(1 << rng.Below(8));
        return true;
      });
  EXPECT_EQ(said.size(), offsets.size());
  for (size_t i = 0; i < after_->tensors.size() && i < said.size(); ++i)
    EXPECT_THAT(said[i], HasSubstr(after_->tensors[i].name));
}

TEST_F(CorruptWeights, AFlippedBitInTheManifestIsRefused) {
  Rng rng(2);
  int faults = 0;
  const auto said = Survive(nullptr, [&](int call, std::string& manifest) {
    if (call >= 300) return false;
    ++faults;
    manifest[rng.Below(manifest.size())] ^=
        static_cast<char>(1 << rng.Below(8));
    return true;
  });
  EXPECT_EQ(faults, 300);
  // What still is a message is refused by its checksum.
  EXPECT_GT(said.size(), 100u);
  for (const std::string& why : said) EXPECT_THAT(why, HasSubstr("checksum"));
}

TEST_F(CorruptWeights, ChunksInAnotherOrderMissingOrTwiceAreRefused) {
  const auto said =
      Survive([&](int call, const v1::FetchRequest&, Reply& reply) {
        auto& m = reply.messages;
        switch (call) {
          case 0:
            std::swap(m[0], m[1]);
            return true;
          case 1:
            std::reverse(m.begin(), m.end());
            return true;
          case 2:
            m.erase(m.begin() + 1);
            return true;
          case 3:
            m.insert(m.begin(), m[0]);
            return true;
          case 4:
            m[1] = m[0];
            return true;
        }
        return false;
      });
  EXPECT_EQ(said.size(), 5u);
}

TEST_F(CorruptWeights, ATruncatedStreamIsRefused) {
  const auto said =
      Survive([&](int call, const v1::FetchRequest&, Reply& reply) {
        auto& m = reply.messages;
        switch (call) {
          case 0:
            m.pop_back();
            return true;
          case 1:
            m.back().pop_back();
            return true;
          case 2:
            m.clear();
            return true;
        }
        return false;
      });
  EXPECT_EQ(said.size(), 3u);
}

TEST_F(CorruptWeights, AnotherVersionsBytesUnderThisManifestAreRefused) {
  const auto tail = [&](size_t from) {
    std::vector<std::string> out;
    for (size_t at = from; at < before_->data.size();
         at += weights::kFetchChunk)
      out.push_back(before_->data.substr(at, weights::kFetchChunk));
    return out;
  };
  const auto said =
      Survive([&](int call, const v1::FetchRequest& request, Reply& reply) {
        switch (call) {
          case 0:
            reply.messages = tail(0);
            return true;
          case 1:  // breaks, and goes on with those of another version
            reply.messages.resize(1);
            reply.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "broke");
            return true;
          case 2:
            EXPECT_EQ(request.from_offset(), weights::kFetchChunk);
            reply.messages = tail(request.from_offset());
            return true;
        }
        return false;
      });
  EXPECT_EQ(said.size(), 2u);
}

TEST_F(CorruptWeights, AWrongRootHashNeverArrives) {
  Survive(nullptr, [&](int call, std::string& bytes) {
    if (call >= 3) return false;
    v1::Manifest manifest;
    EXPECT_TRUE(manifest.ParseFromString(bytes));
    // Well made, but of weights that nobody has.
    manifest.mutable_version()->set_root_hash(call == 0 ? before_->root_hash
                                                        : "nonsense");
    if (call == 2) manifest.mutable_version()->clear_root_hash();
    manifest.set_xxh3(weights::ManifestChecksum(manifest));
    bytes = manifest.SerializeAsString();
    return true;
  });
}

TEST_F(CorruptWeights, ABrokenStreamGoesOnWhereItBroke) {
  const auto said =
      Survive([&](int call, const v1::FetchRequest& request, Reply& reply) {
        EXPECT_EQ(request.from_offset(), call * 1000u);
        if (call >= 3) return false;
        reply.messages.resize(1);
        reply.messages[0].resize(1000);
        reply.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "broke");
        return true;
      });
  EXPECT_TRUE(said.empty());
}

TEST_F(CorruptWeights, TheEngineItselfRefusesADamagedSnapshot) {
  WeightSnapshot damaged = *after_;
  damaged.data[damaged.data.size() / 2] ^= 4;
  EXPECT_TRUE(absl::IsDataLoss(engine_->InstallWeights(damaged)));
  EXPECT_EQ(Sample(*engine_), sampled_before_);
  WeightSnapshot other = *after_;
  other.root_hash = before_->root_hash;
  EXPECT_TRUE(absl::IsDataLoss(engine_->InstallWeights(other)));
  EXPECT_EQ(Sample(*engine_), sampled_before_);
}

TEST_F(CorruptWeights, WeightsAreNotSwappedWhileTheEngineDecodes) {
  engine::EngineRequest r;
  r.id = 100;
  r.prompt = {1, 2, 3};
  r.sampling.max_tokens = 12;
  ASSERT_TRUE(engine_->Enqueue(r).ok());
  for (int step = 0; step < 5; ++step) {
    ASSERT_TRUE(engine_->Step().ok());
    EXPECT_TRUE(absl::IsFailedPrecondition(engine_->InstallWeights(*after_)));
  }
  const auto finish = [](engine::Engine& engine) {
    engine::EngineResult last;
    while (engine.has_work()) {
      const auto finished = engine.Step().value();
      if (!finished.empty()) last = finished[0];
    }
    return last;
  };
  const engine::EngineResult disturbed = finish(*engine_);
  const auto other = OpenEngine(dir_before_);
  ASSERT_TRUE(other->Enqueue(r).ok());
  const engine::EngineResult undisturbed = finish(*other);
  EXPECT_EQ(disturbed.tokens, undisturbed.tokens);
  EXPECT_EQ(disturbed.logprobs, undisturbed.logprobs);
  EXPECT_TRUE(engine_->InstallWeights(*after_).ok());
  EXPECT_EQ(Sample(*engine_), sampled_after_);
}

}  // namespace
}  // namespace atod
