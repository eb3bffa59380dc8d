#include <unistd.h>

#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/file.h"
#include "common/base/rng.h"
#include "common/base/temperature.h"
#include "common/engine/engine.h"
#include "common/model/language_model.h"
#include "common/model/model_files.h"
#include "common/model/threads.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::engine {
namespace {

using model::ModelConfig;

constexpr int kVocab = 90;

// `width` 32 runs on the CPU kernels, 24 on torch's operations.
std::string WriteModel(int64_t width, uint64_t seed, int64_t eos = 3) {
  ModelConfig c;
  c.vocab_size = kVocab;
  c.hidden_size = width;
  c.intermediate_size = 48;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 16;
  c.max_position_embeddings = 128;
  c.rope_theta = 1e4;
  c.tie_word_embeddings = true;
  const std::string dir = testing::TempDir() + "/atod_engine_test." +
                          std::to_string(getpid()) + "." +
                          std::to_string(width) + "." + std::to_string(seed);
  EXPECT_TRUE(model::CreateModel(c, "unit", seed, dir).ok());
  const std::string ids = eos < 0 ? "null" : std::to_string(eos);
  EXPECT_TRUE(WriteFileAtomic(dir + "/generation_config.json",
                              "{\"eos_token_id\": " + ids + "}")
                  .ok());
  return dir;
}

std::unique_ptr<ModelEngine> Open(const std::string& dir, int slots) {
  EngineOptions options;
  options.max_slots = slots;
  options.model.deterministic = {};  // torch where the kernels do not fit
  auto engine = OpenEngine(dir, options);
  EXPECT_TRUE(engine.ok()) << engine.status();
  return std::move(engine).value();
}

std::vector<EngineRequest> Requests(int count, uint64_t seed,
                                    float temperature = 1) {
  Rng rng(seed);
  std::vector<EngineRequest> requests;
  for (int i = 0; i < count; ++i) {
    EngineRequest r;
    r.id = i;
    const uint64_t length = 1 + rng.Below(60);
    for (uint64_t j = 0; j < length; ++j)
      r.prompt.push_back(static_cast<int32_t>(rng.Below(kVocab)));
    r.sampling.temperature = temperature;
    r.sampling.max_tokens = 1 + static_cast<uint32_t>(rng.Below(40));
    r.noise.sample = i;
    requests.push_back(r);
  }
  return requests;
}

std::map<uint64_t, EngineResult> RunAll(Engine& engine,
                                        const std::vector<EngineRequest>& all) {
  for (const EngineRequest& r : all) EXPECT_TRUE(engine.Enqueue(r).ok());
  std::map<uint64_t, EngineResult> results;
  while (engine.has_work()) {
    auto finished = engine.Step();
    EXPECT_TRUE(finished.ok()) << finished.status();
    if (!finished.ok()) break;
    for (EngineResult& r : *finished) results[r.id] = std::move(r);
  }
  EXPECT_EQ(results.size(), all.size());
  return results;
}

// After a change of the data.
void Rehash(weights::WeightSnapshot& snapshot) {
  for (weights::TensorEntry& t : snapshot.tensors)
    t.xxh3 = weights::TensorChecksum(
        std::string_view(snapshot.data).substr(t.offset, t.bytes));
  snapshot.root_hash = weights::ComputeRootHash(snapshot.tensors);
}

// Largest difference between the log-probs of the engine and of one packed
// forward over prompt and response.
double Mismatch(const std::string& dir, const std::vector<EngineRequest>& all,
                const std::map<uint64_t, EngineResult>& results,
                float temperature) {
  const auto m = model::LanguageModel::Open(dir, {.deterministic = {}}).value();
  std::vector<model::ScoredSequence> batch;
  std::vector<float> sampled;
  for (const EngineRequest& r : all) {
    const EngineResult& result = results.at(r.id);
    model::ScoredSequence s{r.prompt, {}};
    s.tokens.insert(s.tokens.end(), result.tokens.begin(), result.tokens.end());
    s.spans = {{static_cast<uint32_t>(r.prompt.size()),
                static_cast<uint32_t>(result.tokens.size())}};
    batch.push_back(s);
    sampled.insert(sampled.end(), result.logprobs.begin(),
                   result.logprobs.end());
  }
  const std::vector<float> scored =
      m->Score(batch, {.temperature = temperature}).value().logprobs;
  double worst = 0;
  for (size_t i = 0; i < sampled.size(); ++i)
    worst = std::max<double>(worst, std::abs(sampled[i] - scored[i]));
  return worst;
}

TEST(Engine, SampledLogProbsEqualPackedScoringToTheBit) {
  const std::string dir = WriteModel(32, 1);
  const auto requests = Requests(40, 2, 0.8f);
  const auto results = RunAll(*Open(dir, 7), requests);
  EXPECT_EQ(Mismatch(dir, requests, results, 0.8f), 0);
}

TEST(Engine, TorchPathAgreesWithPackedScoring) {
  const std::string dir = WriteModel(24, 1);
  const auto requests = Requests(40, 2, 0.8f);
  const auto results = RunAll(*Open(dir, 7), requests);
  EXPECT_LT(Mismatch(dir, requests, results, 0.8f), 2e-5);
}

TEST(Engine, ResponsesDoNotDependOnSlotsOrderOrThreads) {
  const std::string dir = WriteModel(32, 3);
  auto requests = Requests(30, 4);
  const auto base = RunAll(*Open(dir, 30), requests);
  std::reverse(requests.begin(), requests.end());
  model::SetComputeThreads(2);
  const auto other = RunAll(*Open(dir, 3), requests);
  model::SetComputeThreads(1);
  for (const auto& [id, result] : base) {
    EXPECT_EQ(result.tokens, other.at(id).tokens);
    EXPECT_EQ(result.logprobs, other.at(id).logprobs);
    EXPECT_EQ(result.finish, other.at(id).finish);
  }
}

// What a batch is made of must not show: random slots, order and time of
// admission, room, pieces of prompts, threads and living neighbours.
TEST(Engine, LogProbBitsDoNotDependOnTheCompositionOfBatches) {
  const std::string dir = WriteModel(32, 3);
  const auto requests = Requests(40, 4, 0.9f);
  const auto alone = RunAll(*Open(dir, 1), requests);
  for (uint64_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    EngineOptions options;
    options.max_slots = 1 + static_cast<int>(rng.Below(40));
    options.batch_tokens =
        options.max_slots + static_cast<int64_t>(rng.Below(400));
    options.kv_tokens = 128 + static_cast<int64_t>(rng.Below(2000));
    model::SetComputeThreads(1 + static_cast<uint32_t>(rng.Below(3)));
    auto engine = OpenEngine(dir, options).value();
    auto order = requests;
    rng.Shuffle(order);
    // Strangers that share batches and leave their keys behind in the slots.
    auto strangers = Requests(10, 100 + seed);
    std::map<uint64_t, EngineResult> results;
    while (engine->has_work() || !order.empty()) {
      // Some are there from the start, others come while these decode.
      for (uint64_t n = rng.Below(6); n > 0 && !order.empty(); --n) {
        ASSERT_TRUE(engine->Enqueue(order.back()).ok());
        order.pop_back();
        if (rng.Below(4) > 0 || strangers.empty()) continue;
        strangers.back().id += 1000;
        ASSERT_TRUE(engine->Enqueue(strangers.back()).ok());
        strangers.pop_back();
      }
      auto finished = engine->Step();
      ASSERT_TRUE(finished.ok()) << finished.status();
      for (EngineResult& r : *finished) results[r.id] = std::move(r);
    }
    for (const auto& [id, result] : alone) {
      ASSERT_EQ(result.tokens, results.at(id).tokens) << "request " << id;
      ASSERT_EQ(result.logprobs, results.at(id).logprobs) << "request " << id;
    }
  }
  model::SetComputeThreads(1);
}

// Episodes of a few turns, each prompt being the last one, its response and
// something new; several episodes of a task begin with the same prompt.
class Episodes {
 public:
  Episodes(int count, uint64_t seed) : rng_(seed) {
    for (int i = 0; i < count; ++i) {
      if (i % 3 == 0) task_ = New(20 + rng_.Below(30));
      contexts_.push_back(task_);
    }
    turns_.resize(count);
  }
  // `sharing`: with sessions and groups, many at once; else each request alone.
  void Play(ModelEngine& engine, bool sharing) {
    while (true) {
      for (size_t i = 0; i < contexts_.size(); ++i) {
        if (turns_[i].size() == kTurns || waiting_.contains(i)) continue;
        Ask(engine, i, sharing);
        if (!sharing) break;
      }
      if (waiting_.empty()) return;
      auto finished = engine.Step();
      ASSERT_TRUE(finished.ok()) << finished.status();
      for (EngineResult& r : *finished) Answer(std::move(r));
    }
  }
  const std::vector<std::vector<EngineResult>>& turns() const { return turns_; }
  static constexpr size_t kTurns = 3;

 private:
  std::vector<int32_t> New(uint64_t length) {
    std::vector<int32_t> out(length);
    for (int32_t& t : out) t = static_cast<int32_t>(rng_.Below(kVocab));
    return out;
  }
  void Ask(ModelEngine& engine, size_t i, bool sharing) {
    EngineRequest r{.id = i, .prompt = contexts_[i]};
    r.sampling.max_tokens = 6;
    r.noise.sample = static_cast<uint32_t>(i);
    r.noise.turn = static_cast<uint32_t>(turns_[i].size());
    if (sharing) {
      r.session = i + 1;
      r.group = i / 3 + 1;
    }
    const absl::Status s = engine.Enqueue(std::move(r));
    ASSERT_TRUE(s.ok()) << s;
    waiting_.insert(i);
  }
  void Answer(EngineResult r) {
    std::vector<int32_t>& context = contexts_[r.id];
    context.insert(context.end(), r.tokens.begin(), r.tokens.end());
    // Depends on the episode and turn alone.
    for (int k = 0; k < 8; ++k)
      context.push_back(
          static_cast<int32_t>(MixSeed(r.id, turns_[r.id].size(), k) % kVocab));
    waiting_.erase(r.id);
    turns_[r.id].push_back(std::move(r));
  }

  Rng rng_;
  std::vector<int32_t> task_;
  std::vector<std::vector<int32_t>> contexts_;
  std::vector<std::vector<EngineResult>> turns_;
  std::set<uint64_t> waiting_;
};

TEST(Engine, BitsDoNotDependOnSessionsAndGroups) {
  const std::string dir = WriteModel(32, 3, /*eos=*/-1);
  Episodes alone(12, 5);
  const auto plain = Open(dir, 1);
  alone.Play(*plain, false);
  EXPECT_EQ(plain->stats().prompt_tokens_reused, 0);
  for (uint64_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    EngineOptions options;
    options.max_slots = 2 + static_cast<int>(rng.Below(12));
    options.batch_tokens =
        options.max_slots + static_cast<int64_t>(rng.Below(100));
    if (seed > 0) options.kv_tokens = 128 + 128 * rng.Below(10);
    const auto engine = OpenEngine(dir, options).value();
    Episodes shared(12, 5);
    shared.Play(*engine, true);
    for (size_t i = 0; i < alone.turns().size(); ++i)
      for (size_t t = 0; t < Episodes::kTurns; ++t) {
        const EngineResult &a = alone.turns()[i][t], &b = shared.turns()[i][t];
        ASSERT_EQ(a.tokens, b.tokens) << "episode " << i << " turn " << t;
        ASSERT_EQ(a.logprobs, b.logprobs) << "episode " << i << " turn " << t;
      }
    const EngineStats stats = engine->stats();
    if (seed == 0) {
      EXPECT_GT(stats.prompt_tokens_reused, stats.prompt_tokens_computed);
    }
    for (uint64_t session = 1; session <= 12; ++session)
      engine->EndSession(session);
    EXPECT_EQ(engine->stats().cache_rows_used, 0);
  }
}

TEST(Engine, NumbersThatAreNotFiniteEndInAnErrorAndGoodWeightsGoOn) {
  const std::string dir = WriteModel(32, 3);
  for (const bool exact : {true, false}) {
    SCOPED_TRACE(exact);
    EngineOptions options;
    options.model.deterministic = exact;
    const auto engine = OpenEngine(dir, options).value();
    const auto requests = Requests(4, 9);
    const auto good =
        model::LanguageModel::Open(dir, {}).value()->Export("float32").value();
    // Finite weights whose logits are not.
    auto huge = good;
    for (const weights::TensorEntry& t : huge.tensors) {
      if (t.name != "model.norm.weight") continue;
      const std::vector<float> large(t.bytes / sizeof(float), 3e38f);
      std::memcpy(&huge.data[t.offset], large.data(), t.bytes);
    }
    Rehash(huge);
    ASSERT_TRUE(engine->InstallWeights(huge).ok());
    for (const EngineRequest& r : requests)
      ASSERT_TRUE(engine->Enqueue(r).ok());
    const auto failed = engine->Step();
    EXPECT_EQ(failed.status().code(), absl::StatusCode::kFailedPrecondition)
        << failed.status();
    EXPECT_FALSE(engine->has_work());
    EXPECT_EQ(engine->stats().cache_rows_used, 0);
    ASSERT_TRUE(engine->InstallWeights(good).ok());
    RunAll(*engine, requests);
  }
}

TEST(Engine, FreeModeRunsOnTorch) {
  const std::string dir = WriteModel(32, 1);
  const auto requests = Requests(40, 2, 0.8f);
  EngineOptions options;
  options.max_slots = 7;
  options.model.deterministic = false;
  const auto results = RunAll(*OpenEngine(dir, options).value(), requests);
  const double mismatch = Mismatch(dir, requests, results, 0.8f);
  EXPECT_GT(mismatch, 0) << "the kernels give the very same bits";
  EXPECT_LT(mismatch, 2e-5);
}

TEST(Engine, StopsAtEachDeclaredEndTokenAndAtTheLimits) {
  const std::string dir = WriteModel(32, 3);
  ASSERT_TRUE(WriteFileAtomic(dir + "/generation_config.json",
                              R"({"eos_token_id": [3, 4]})")
                  .ok());
  const auto requests = Requests(200, 4);
  std::map<int32_t, int> stopped;
  for (const auto& [id, r] : RunAll(*Open(dir, 16), requests)) {
    ASSERT_FALSE(r.tokens.empty());
    ASSERT_EQ(r.tokens.size(), r.logprobs.size());
    for (size_t i = 0; i + 1 < r.tokens.size(); ++i)
      ASSERT_TRUE(r.tokens[i] != 3 && r.tokens[i] != 4) << "went on after it";
    if (r.finish == FinishReason::kStop) {
      ++stopped[r.tokens.back()];
    } else {
      EXPECT_EQ(r.tokens.size(), requests[id].sampling.max_tokens);
    }
  }
  EXPECT_EQ(stopped.size(), 2u);
  EXPECT_GT(stopped[3], 5);
  EXPECT_GT(stopped[4], 5);
  EngineRequest full;
  full.prompt.assign(120, 5);
  full.sampling.max_tokens = 1000;
  const auto result = RunAll(*Open(WriteModel(32, 5, /*eos=*/-1), 1), {full});
  EXPECT_EQ(result.at(0).tokens.size(), 8u) << "128 is the model's context";
  EXPECT_EQ(result.at(0).finish, FinishReason::kLength);
}

TEST(Engine, WeightsAreSwappedOnlyBetweenRequests) {
  const std::string a = WriteModel(32, 3), b = WriteModel(32, 4);
  const auto snapshot =
      model::LanguageModel::Open(b, {}).value()->Export("float32").value();
  auto engine = Open(a, 4);
  const auto requests = Requests(4, 9);
  ASSERT_TRUE(engine->Enqueue(requests[0]).ok());
  EXPECT_EQ(engine->InstallWeights(snapshot).code(),
            absl::StatusCode::kFailedPrecondition);
  engine->CancelAll();
  ASSERT_TRUE(engine->InstallWeights(snapshot).ok());
  const auto expected = RunAll(*Open(b, 4), requests);
  for (const auto& [id, r] : RunAll(*engine, requests))
    EXPECT_EQ(r.tokens, expected.at(id).tokens);
}

}  // namespace
}  // namespace atod::engine
