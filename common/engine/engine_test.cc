#include "common/engine/engine.h"

#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/base/rng.h"
#include "common/engine/fake_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::engine {
namespace {

using testing::HasSubstr;

constexpr int64_t kVocab = 90;

class EngineTest : public testing::Test {
 protected:
  std::unique_ptr<ModelEngine> Make(const EngineOptions& options,
                                    std::vector<int32_t> stop_tokens = {}) {
    auto model = std::make_unique<FakeModel>(kVocab, 128);
    model_ = model.get();
    return MakeEngine(std::move(model), stop_tokens, options).value();
  }
  FakeModel* model_ = nullptr;  // of the last engine
};

EngineRequest Request(uint64_t id, int prompt, uint32_t max_tokens) {
  EngineRequest r{.id = id, .prompt = std::vector<int32_t>(prompt, 5)};
  r.prompt.back() = static_cast<int32_t>(id) % kVocab;
  r.sampling.max_tokens = max_tokens;
  return r;
}

std::map<uint64_t, EngineResult> RunAll(ModelEngine& engine) {
  std::map<uint64_t, EngineResult> results;
  while (engine.has_work()) {
    auto finished = engine.Step();
    EXPECT_TRUE(finished.ok()) << finished.status();
    if (!finished.ok()) break;
    for (EngineResult& r : *finished) results[r.id] = std::move(r);
  }
  return results;
}

TEST_F(EngineTest, EachTokenHasTheNoiseOfItsPosition) {
  const auto engine = Make({.max_slots = 3});
  std::vector<EngineRequest> requests;
  for (uint64_t id = 0; id < 10; ++id) {
    requests.push_back(Request(id, 20, 12));
    requests.back().noise = {.run_seed = 7, .sample = 3};
    requests.back().noise.turn = static_cast<uint32_t>(id);
    ASSERT_TRUE(engine->Enqueue(requests.back()).ok());
  }
  const auto results = RunAll(*engine);
  ASSERT_EQ(results.size(), 10u);
  for (const EngineRequest& r : requests) {
    std::vector<int32_t> tokens = r.prompt;
    NoiseKey key = r.noise;
    for (key.position = 0; key.position < 12; ++key.position)
      tokens.push_back(FakeModel::Next(tokens, 1, NoiseUniform(key), kVocab));
    tokens.erase(tokens.begin(), tokens.begin() + r.prompt.size());
    EXPECT_EQ(results.at(r.id).tokens, tokens);
    EXPECT_EQ(results.at(r.id).finish, FinishReason::kLength);
    EXPECT_EQ(results.at(r.id).logprobs.size(), 12u);
  }
}

TEST_F(EngineTest, AStopTokenEndsAResponse) {
  std::vector<int32_t> all(kVocab);
  for (int32_t t = 0; t < kVocab; ++t) all[t] = t;
  const auto engine = Make({}, all);
  ASSERT_TRUE(engine->Enqueue(Request(1, 20, 12)).ok());
  const auto results = RunAll(*engine);
  EXPECT_EQ(results.at(1).tokens.size(), 1u);
  EXPECT_EQ(results.at(1).finish, FinishReason::kStop);
}

TEST_F(EngineTest, RefusesBadRequestsByField) {
  const auto engine = Make({.max_slots = 2});
  const auto refused = [&](auto change) {
    EngineRequest r;
    r.prompt = {1, 2};
    change(r);
    const absl::Status s = engine->Enqueue(r);
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
    return std::string(s.message());
  };
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
  EXPECT_FALSE(engine->has_work());
  ASSERT_TRUE(engine->Enqueue({.id = 7, .prompt = {1}}).ok());
  EXPECT_THAT(refused([](auto& r) { r.id = 7; }), HasSubstr("living"));
  engine->CancelAll();
  EXPECT_FALSE(engine->has_work());
}

TEST_F(EngineTest, AFullQueueIsAnErrorThatPassesByItself) {
  const auto engine = Make({.max_slots = 1, .max_queue = 2});
  ASSERT_TRUE(engine->Enqueue(Request(1, 10, 3)).ok());
  ASSERT_TRUE(engine->Enqueue(Request(2, 10, 3)).ok());
  EXPECT_EQ(engine->Enqueue(Request(3, 10, 3)).code(),
            absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(engine->Step().ok());
  ASSERT_TRUE(engine->Enqueue(Request(3, 10, 3)).ok());
  EXPECT_EQ(RunAll(*engine).size(), 3u);
}

TEST_F(EngineTest, ARequestThatTheCacheCanNeverHoldIsRefused) {
  const auto engine = Make({.max_slots = 4, .kv_tokens = 64});
  const absl::Status refused = engine->Enqueue(Request(1, 60, 5));
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refused.message(), HasSubstr("65 tokens, expected at most 64"));
  ASSERT_TRUE(engine->Enqueue(Request(1, 60, 4)).ok());
  EXPECT_EQ(RunAll(*engine).size(), 1u);
}

TEST_F(EngineTest, ACancelledRequestGivesItsRegionBackAndNoResult) {
  const auto engine = Make({});
  ASSERT_TRUE(engine->Enqueue(Request(1, 20, 50)).ok());
  ASSERT_TRUE(engine->Enqueue(Request(2, 20, 5)).ok());
  ASSERT_TRUE(engine->Step().ok());
  EXPECT_EQ(engine->Sampled(1).size(), 1u);
  EXPECT_TRUE(engine->Cancel(1));
  EXPECT_FALSE(engine->Cancel(1));
  EXPECT_TRUE(engine->Sampled(1).empty());
  const auto results = RunAll(*engine);
  EXPECT_EQ(results.size(), 1u);
  EXPECT_TRUE(results.contains(2));
  EXPECT_EQ(engine->stats().cache_rows_used, 0);
}

TEST_F(EngineTest, AFailedStepDropsEverythingAndTheEngineLivesOn) {
  const auto engine = Make({.max_slots = 2});
  auto kept = Request(9, 20, 4);
  kept.session = 1;
  ASSERT_TRUE(engine->Enqueue(kept).ok());
  RunAll(*engine);
  for (uint64_t id = 0; id < 4; ++id)
    ASSERT_TRUE(engine->Enqueue(Request(id, 20, 5)).ok());
  ASSERT_TRUE(engine->Step().ok());
  model_->step_error = absl::FailedPreconditionError("logits: found nan");
  EXPECT_EQ(engine->Step().status(), model_->step_error);
  EXPECT_FALSE(engine->has_work());
  EXPECT_EQ(engine->stats().cache_rows_used, 0);
  model_->step_error = absl::OkStatus();
  ASSERT_TRUE(engine->Enqueue(Request(1, 20, 5)).ok());
  EXPECT_EQ(RunAll(*engine).size(), 1u);
}

TEST_F(EngineTest, WeightsThatAreRefusedLeaveSessionsAsTheyWere) {
  const auto engine = Make({});
  auto r = Request(1, 20, 4);
  r.session = 1;
  ASSERT_TRUE(engine->Enqueue(r).ok());
  RunAll(*engine);
  model_->install_error = absl::DataLossError("checksum");
  EXPECT_EQ(engine->InstallWeights({}), model_->install_error);
  EXPECT_EQ(engine->stats().idle_sessions, 1);
  model_->install_error = absl::OkStatus();
  EXPECT_TRUE(engine->InstallWeights({}).ok());
  EXPECT_EQ(engine->stats().idle_sessions, 0);
  ASSERT_TRUE(engine->Enqueue(r).ok());
  RunAll(*engine);
  EXPECT_EQ(engine->stats().prompt_tokens_computed, 40);
  EXPECT_EQ(engine->stats().prompt_tokens_reused, 0);
}

TEST_F(EngineTest, AStepHasRoomForATokenOfEachSlot) {
  EngineOptions options{.max_slots = 9, .batch_tokens = 8};
  const auto engine =
      MakeEngine(std::make_unique<FakeModel>(kVocab, 128), {}, options);
  EXPECT_THAT(engine.status().message(),
              HasSubstr("batch_tokens: found 8, expected at least one for "
                        "each of 9 slots"));
}

}  // namespace
}  // namespace atod::engine
