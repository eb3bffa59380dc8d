// What the back end cpu-exact promises: the same bits whatever the batch, the
// chunk, the thread, the place in the cache or the session.
#include "common/model/exact/exact_model.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "ATen/Parallel.h"
#include "common/base/rng.h"
#include "common/model/arena.h"
#include "common/model/model_files.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::model {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kVocab = 90;

ModelConfig Small() {
  ModelConfig c;
  c.vocab_size = kVocab;
  c.hidden_size = 32;
  c.intermediate_size = 48;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 16;
  c.max_position_embeddings = 512;
  c.rope_theta = 1e4;
  c.tie_word_embeddings = true;
  return c;
}

std::vector<int32_t> RandomTokens(int64_t count, Rng& rng) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<int32_t>(rng.Below(kVocab)));
  return tokens;
}

// Two spans, of which the second ends with the sequence.
ScoredSequence Scored(std::vector<int32_t> tokens) {
  const uint32_t n = static_cast<uint32_t>(tokens.size());
  return {.tokens = std::move(tokens), .spans = {{n - 7, 2}, {n - 3, 3}}};
}

std::vector<ScoredSequence> RandomBatch(int count, int64_t longest,
                                        uint64_t seed) {
  Rng rng(seed);
  std::vector<ScoredSequence> batch;
  for (int i = 0; i < count; ++i)
    batch.push_back(Scored(
        RandomTokens(8 + static_cast<int64_t>(rng.Below(longest - 8)), rng)));
  return batch;
}

class ExactModelTest : public testing::Test {
 protected:
  void SetUp() override { Use(Small()); }
  ~ExactModelTest() override { at::set_num_threads(1); }

  // With norms other than 1, so that theirs are seen too.
  void Use(const ModelConfig& config) {
    const std::string dir = testing::TempDir() + "/exact_model";
    std::filesystem::remove_all(dir);
    ASSERT_TRUE(CreateModel(config, "unit", 9, dir).ok());
    auto model = LanguageModel::Open(dir, {.gradients = true});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    ParameterArena& arena = model_->arena();
    Rng rng(2);
    for (size_t i = 0; i < arena.specs().size(); ++i) {
      if (arena.specs()[i].shape.size() > 1) continue;
      float* norm = arena.masters.data_ptr<float>() + arena.offsets()[i];
      for (int64_t j = 0; j < arena.specs()[i].shape[0]; ++j)
        norm[j] += 0.2f * static_cast<float>(rng.Normal());
    }
    ASSERT_TRUE(model_->ParametersChanged().ok());
    std::filesystem::remove_all(dir);
  }

  std::vector<float> Score(const std::vector<ScoredSequence>& batch) {
    const auto out = model_->Score(batch, {});
    EXPECT_TRUE(out.ok()) << out.status();
    return out.ok() ? out->logprobs : std::vector<float>();
  }
  std::vector<float> ScoreEachAlone(const std::vector<ScoredSequence>& batch) {
    std::vector<float> all;
    for (const ScoredSequence& s : batch)
      for (const float v : Score({s})) all.push_back(v);
    return all;
  }

  std::vector<SampledToken> Step(const std::vector<StepInput>& inputs) {
    std::vector<SampledToken> sampled;
    const absl::Status s = model_->Step(inputs, &sampled);
    EXPECT_TRUE(s.ok()) << s;
    return sampled;
  }

  // The gradient of sum(w logprobs + v entropies), added to what is there.
  void AddGradient(const std::vector<ScoredSequence>& batch, float v) {
    const auto out = model_->ScoreForBackward(
        batch, {.temperature = 0.7f, .want_entropy = v != 0});
    ASSERT_TRUE(out.ok()) << out.status();
    std::vector<float> by_logprob, by_entropy;
    for (size_t i = 0; i < out->logprobs.size(); ++i) {
      by_logprob.push_back(std::cos(static_cast<float>(i)));
      if (v != 0) by_entropy.push_back(v * by_logprob.back());
    }
    const absl::Status s = model_->Backward(by_logprob, by_entropy);
    ASSERT_TRUE(s.ok()) << s;
  }

  std::unique_ptr<LanguageModel> model_;
};

bool operator==(const SampledToken& a, const SampledToken& b) {
  return a.token == b.token && a.logprob == b.logprob;
}

std::vector<float> Copy(const torch::Tensor& t) {
  return {t.data_ptr<float>(), t.data_ptr<float>() + t.numel()};
}

TEST_F(ExactModelTest, ScoresDoNotDependOnBatchesOrThreads) {
  const auto batch = RandomBatch(17, 200, 10);
  const std::vector<float> alone = ScoreEachAlone(batch);
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    EXPECT_EQ(Score(batch), alone) << threads;
  }
}

TEST_F(ExactModelTest, APrefixThatSequencesShareChangesNoBit) {
  Rng rng(3);
  std::vector<ScoredSequence> batch;
  for (const int64_t shared : {150, 70, 200}) {
    const std::vector<int32_t> prefix = RandomTokens(shared, rng);
    for (int i = 0; i < 3; ++i) {
      std::vector<int32_t> tokens = prefix;
      for (const int32_t t : RandomTokens(8 + 30 * i, rng)) tokens.push_back(t);
      batch.push_back(Scored(std::move(tokens)));
    }
  }
  batch.push_back(batch[4]);  // all of it
  rng.Shuffle(batch);
  const std::vector<float> alone = ScoreEachAlone(batch);
  for (const int threads : {1, 3}) {
    at::set_num_threads(threads);
    EXPECT_EQ(Score(batch), alone) << threads;
  }
}

TEST_F(ExactModelTest, ASessionScoresItsTurnsAsTheWholeSequence) {
  ASSERT_TRUE(model_->AllocateCache(512).ok());
  Rng rng(4);
  const std::vector<int32_t> all = RandomTokens(190, rng);
  const std::vector<TokenSpan> spans = {{30, 5}, {90, 1}, {91, 20}, {180, 10}};
  const std::vector<float> whole = Score({{.tokens = all, .spans = spans}});
  // Turns of any length, also ones that end inside a unit of the cache, with
  // another session beside.
  const std::vector<size_t> ends = {40, 90, 133, 190};
  std::vector<float> turns;
  size_t cached = 0;
  for (const size_t end : ends) {
    ScoredSequence s = {.tokens = {all.begin(), all.begin() + end},
                        .spans = {},
                        .region = {64, 208},
                        .cached = static_cast<int64_t>(cached)};
    for (const TokenSpan& span : spans)
      if (span.begin >= cached && span.begin < end) s.spans.push_back(span);
    ScoredSequence other = Scored(RandomTokens(40, rng));
    other.region = {272, 64};
    const std::vector<float> got = Score({other, s});
    turns.insert(turns.end(), got.begin() + 5, got.end());
    cached = end;
    if (cached == 90) --cached;  // its last token is what the next one follows
  }
  EXPECT_EQ(turns, whole);
}

TEST_F(ExactModelTest, APromptInChunksIsThePromptAsAWhole) {
  ASSERT_TRUE(model_->AllocateCache(1024).ok());
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Rng rng(seed);
    const int64_t n = 20 + static_cast<int64_t>(rng.Below(200));
    const std::vector<int32_t> prompt = RandomTokens(n, rng);
    const std::vector<int32_t> beside = RandomTokens(64, rng);
    const Sampling sampling = {.temperature = 0.8f, .noise = rng.Uniform()};
    const auto whole = Step({{prompt, 0, {0, 256}, sampling}});
    ASSERT_EQ(whole.size(), 1u);
    std::vector<SampledToken> got;
    for (int64_t at = 0; at < n;) {
      const int64_t take =
          std::min<int64_t>(n - at, 1 + static_cast<int64_t>(rng.Below(40)));
      StepInput in = {absl::MakeConstSpan(prompt).subspan(at, take),
                      at,
                      {512, 256},
                      std::nullopt};
      at += take;
      if (at == n) in.sample = sampling;
      at::set_num_threads(1 + static_cast<int>(rng.Below(3)));
      got = Step({{beside, 0, {256, 64}, Sampling()}, in});
    }
    ASSERT_EQ(got.size(), 2u);
    EXPECT_TRUE(got[1] == whole[0]) << seed;
    // And what a teacher would give the sampled token.
    std::vector<int32_t> scored = prompt;
    scored.push_back(whole[0].token);
    const auto out = model_->Score(
        std::vector<ScoredSequence>{
            {.tokens = scored, .spans = {{static_cast<uint32_t>(n), 1}}}},
        {.temperature = 0.8f});
    EXPECT_EQ(out.value().logprobs[0], whole[0].logprob);
  }
}

TEST_F(ExactModelTest, ThreadsShareTheRowsOfALargeVocabulary) {
  ModelConfig config = Small();
  config.vocab_size = 40000;
  Use(config);
  ASSERT_TRUE(model_->AllocateCache(8 * 16).ok());
  Rng rng(8);
  const std::vector<int32_t> prompt = RandomTokens(9, rng);
  std::vector<StepInput> inputs;
  for (int i = 0; i < 8; ++i)
    inputs.push_back({absl::MakeConstSpan(prompt).first(2 + i),
                      0,
                      {16 * i, 16},
                      Sampling{.top_k = 100, .noise = rng.Uniform()}});
  const ScoredSequence scored = Scored(RandomTokens(60, rng));
  std::vector<std::vector<SampledToken>> sampled;
  std::vector<std::vector<int32_t>> likeliest;
  for (const int threads : {1, 3}) {
    at::set_num_threads(threads);
    sampled.push_back(Step(inputs));
    likeliest.push_back(model_->Score({{scored}}, {.top_k = 3})->top_ids);
  }
  ASSERT_EQ(sampled[0].size(), 8u);
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(sampled[0][i] == sampled[1][i]) << i;
  EXPECT_EQ(likeliest[0], likeliest[1]);
}

TEST_F(ExactModelTest, ManyQueriesMayShareAKey) {
  ModelConfig config = Small();
  config.num_attention_heads = 56;
  config.num_key_value_heads = 1;
  Use(config);
  ASSERT_TRUE(model_->AllocateCache(64).ok());
  Rng rng(7);
  const std::vector<int32_t> prompt = RandomTokens(30, rng);
  Step({{prompt, 0, {0, 64}, std::nullopt}});
  const std::vector<int32_t> next = {5};
  const auto sampled = Step({{next, 30, {0, 64}, Sampling{.noise = 0.5}}});
  ASSERT_EQ(sampled.size(), 1u);
  std::vector<int32_t> all = prompt;
  all.push_back(5);
  all.push_back(sampled[0].token);
  EXPECT_EQ(Score({{.tokens = all, .spans = {{30, 2}}}})[1],
            sampled[0].logprob);
}

TEST_F(ExactModelTest, ACopiedRegionGoesOnAsItsOriginal) {
  ASSERT_TRUE(model_->AllocateCache(512).ok());
  Rng rng(6);
  const std::vector<int32_t> prompt = RandomTokens(75, rng);
  Step({{prompt, 0, {96, 128}, std::nullopt}});
  ASSERT_TRUE(model_->CopyCache({96, 128}, {320, 96}, 75).ok());
  const std::vector<int32_t> next = RandomTokens(9, rng);
  const auto sampled = Step({{next, 75, {96, 128}, Sampling{.noise = 0.5}},
                             {next, 75, {320, 96}, Sampling{.noise = 0.5}}});
  ASSERT_EQ(sampled.size(), 2u);
  EXPECT_TRUE(sampled[0] == sampled[1]);
  // Compaction moves a region to where it began later.
  ASSERT_TRUE(model_->CopyCache({96, 128}, {48, 128}, 84).ok());
  const auto moved = Step({{next, 84, {48, 128}, Sampling{.noise = 0.5}},
                           {next, 84, {320, 96}, Sampling{.noise = 0.5}}});
  EXPECT_TRUE(moved[0] == moved[1]);
}

TEST_F(ExactModelTest, ARowOfTheCacheHasItsBytes) {
  // Keys and values, 2 layers, 2 heads of 16 floats.
  EXPECT_EQ(model_->CacheRowBytes(), 2 * 2 * 2 * 16 * 4);
}

TEST_F(ExactModelTest, GradientsAddUpAndDoNotDependOnThreads) {
  const auto first = RandomBatch(40, 100, 10), second = RandomBatch(9, 60, 11);
  const torch::Tensor& g = model_->arena().gradients;
  AddGradient(first, 0);
  const torch::Tensor of_first = g.clone();
  g.zero_();
  AddGradient(second, 0.5f);
  const std::vector<float> expected = Copy(of_first + g);
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    g.zero_();
    AddGradient(first, 0);
    AddGradient(second, 0.5f);
    EXPECT_EQ(Copy(g), expected) << threads;
  }
}

TEST_F(ExactModelTest, WhatIsWrittenToTheArenaIsUsedOnceItIsSaid) {
  const auto batch = RandomBatch(3, 40, 12);
  const std::vector<float> before = Score(batch);
  const weights::WeightSnapshot snapshot = model_->Export("float32").value();
  EXPECT_EQ(model_->WeightsHash().value(), snapshot.root_hash);
  model_->arena().masters.mul_(1.01);
  ASSERT_TRUE(model_->ParametersChanged().ok());
  EXPECT_NE(Score(batch), before);
  EXPECT_NE(model_->WeightsHash().value(), snapshot.root_hash);
  ASSERT_TRUE(model_->Install(snapshot).ok());
  EXPECT_EQ(Score(batch), before);
}

TEST(ExactObstacleTest, IsNamed) {
  const ModelConfig good = Small();
  EXPECT_EQ(ExactObstacle(good, "float32", "cpu"), "");
  EXPECT_THAT(ExactObstacle(good, "bfloat16", "cpu"), HasSubstr("bfloat16"));
  EXPECT_THAT(ExactObstacle(good, "float32", "cuda"), HasSubstr("cuda"));
  ModelConfig odd = good;
  odd.intermediate_size = 40;
  EXPECT_THAT(ExactObstacle(odd, "float32", "cpu"), HasSubstr("16"));
  ModelConfig experts = good;
  experts.num_experts = 4;
  experts.num_experts_per_tok = 2;
  experts.moe_intermediate_size = 16;
  EXPECT_THAT(ExactObstacle(experts, "float32", "cpu"),
              HasSubstr("mixture of experts"));
}

}  // namespace
}  // namespace atod::model
