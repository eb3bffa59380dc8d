#include "common/engine/engine.h"

#include <unistd.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "common/base/rng.h"
#include "common/base/temperature.h"
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
  auto engine = MakeEngine(dir, options);
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
// admission, prefill budgets, threads and living neighbours.
TEST(Engine, LogProbBitsDoNotDependOnTheCompositionOfBatches) {
  const std::string dir = WriteModel(32, 3);
  const auto requests = Requests(40, 4, 0.9f);
  const auto alone = RunAll(*Open(dir, 1), requests);
  for (uint64_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    EngineOptions options;
    options.max_slots = 1 + static_cast<int>(rng.Below(40));
    options.max_prefill_tokens = 1 + static_cast<int64_t>(rng.Below(400));
    model::SetComputeThreads(1 + static_cast<uint32_t>(rng.Below(3)));
    auto engine = MakeEngine(dir, options).value();
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

TEST(Engine, FreeModeRunsOnTorch) {
  const std::string dir = WriteModel(32, 1);
  const auto requests = Requests(40, 2, 0.8f);
  EngineOptions options;
  options.max_slots = 7;
  options.model.deterministic = false;
  const auto results = RunAll(*MakeEngine(dir, options).value(), requests);
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

TEST(Engine, RefusesBadRequestsByField) {
  auto engine = Open(WriteModel(32, 3), 2);
  const auto refused = [&](auto change) {
    EngineRequest r;
    r.prompt = {1, 2};
    change(r);
    const absl::Status s = engine->Enqueue(r);
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
    return std::string(s.message());
  };
  using testing::HasSubstr;
  EXPECT_THAT(refused([](auto& r) { r.prompt.clear(); }), HasSubstr("prompt"));
  EXPECT_THAT(refused([](auto& r) { r.prompt.assign(128, 1); }),
              HasSubstr("127"));
  EXPECT_THAT(refused([](auto& r) { r.prompt = {90}; }), HasSubstr("id 90"));
  EXPECT_THAT(refused([](auto& r) { r.prompt = {-1}; }), HasSubstr("id -1"));
  EXPECT_THAT(refused([](auto& r) { r.sampling.temperature = 0.009f; }),
              HasSubstr("temperature: found 0.009, expected 0 (greedy), or at "
                        "least 0.01"));
  EXPECT_THAT(refused([](auto& r) { r.sampling.temperature = NAN; }),
              HasSubstr("temperature"));
  EXPECT_THAT(refused([](auto& r) { r.sampling.top_p = 0; }),
              HasSubstr("top_p"));
  EXPECT_THAT(refused([](auto& r) { r.sampling.max_tokens = 0; }),
              HasSubstr("max_tokens"));
  EXPECT_THAT(refused([](auto& r) { r.session = 1; }), HasSubstr("session"));
  EXPECT_THAT(refused([](auto& r) { r.group = 1; }), HasSubstr("group"));
  EXPECT_FALSE(engine->has_work());
  ASSERT_TRUE(engine->Enqueue({.id = 7, .prompt = {1}}).ok());
  EXPECT_THAT(refused([](auto& r) { r.id = 7; }), HasSubstr("living"));
  engine->CancelAll();
  EXPECT_FALSE(engine->has_work());
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
