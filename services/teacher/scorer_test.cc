#include "services/teacher/scorer.h"

#include <unistd.h>

#include <cmath>
#include <string>

#include "common/base/rng.h"
#include "common/model/language_model.h"
#include "common/model/model_files.h"
#include "common/model/weights_io.h"
#include "gtest/gtest.h"

namespace atod::teacher {
namespace {

// A folder with a small model.
std::string MakeModel() {
  model::ModelConfig c;
  c.vocab_size = 60;
  c.hidden_size = 32;
  c.intermediate_size = 48;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 2;
  c.num_key_value_heads = 1;
  c.head_dim = 16;
  c.max_position_embeddings = 128;
  const std::string dir =
      testing::TempDir() + "/atod_scorer_test." + std::to_string(getpid());
  EXPECT_TRUE(model::CreateModel(c, "unit", 1, dir).ok());
  return dir;
}

TEST(Scorer, AnswersDoNotDependOnHowRequestsAreSplit) {
  const std::string dir = MakeModel();
  const auto m = model::LanguageModel::Open(dir, {}).value();

  Rng rng(1);
  std::vector<ScoreRequest> requests(12);
  for (ScoreRequest& r : requests) {
    for (int i = 0; i < 30; ++i)
      r.tokens.push_back(static_cast<int32_t>(rng.Below(60)));
    r.spans = {{2, 3}, {20, 10}};
  }
  const auto score = [&](int64_t budget) {
    ScorerOptions options;
    options.max_forward_tokens = budget;
    auto loaded = MakeScorer(dir, options);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(loaded->weights_hash, m->Export("float32")->root_hash);
    EXPECT_EQ(loaded->max_context, 128u);
    return loaded->scorer->Score(requests, {0.5f, true}).value();
  };
  const auto whole = score(10000), split = score(70), single = score(1);
  ASSERT_EQ(whole.size(), requests.size());
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_EQ(whole[i].logprobs.size(), 13u);
    EXPECT_EQ(whole[i].entropy.size(), 13u);
    EXPECT_EQ(whole[i].logprobs, split[i].logprobs);
    EXPECT_EQ(whole[i].logprobs, single[i].logprobs);
    EXPECT_EQ(whole[i].entropy, split[i].entropy);
  }
  EXPECT_NE(whole[0].logprobs, whole[1].logprobs);
}

TEST(Scorer, GivesTheMostLikelyTokensOfEveryPosition) {
  const std::string dir = MakeModel();
  auto loaded = MakeScorer(dir, {}).value();
  ScoreRequest request{{1, 2, 3, 4, 5, 6}, {{1, 2}, {4, 2}}};
  const auto scored =
      loaded.scorer->Score({request, request}, {.temperature = 1, .top_k = 60});
  ASSERT_TRUE(scored.ok());
  const ScoreResult& result = scored->at(1);
  ASSERT_EQ(result.top_ids.size(), 4u * 60);
  const int32_t wanted[] = {2, 3, 5, 6};
  for (int i = 0; i < 4; ++i) {
    double sum = 0;
    for (int k = 60 * i; k < 60 * (i + 1); ++k) {
      sum += std::exp(result.top_logprobs[k]);
      if (k > 60 * i) {
        EXPECT_LE(result.top_logprobs[k], result.top_logprobs[k - 1]);
      }
      if (result.top_ids[k] == wanted[i]) {
        EXPECT_NEAR(result.top_logprobs[k], result.logprobs[i], 1e-5);
      }
    }
    EXPECT_NEAR(sum, 1, 1e-4);  // of all 60 words
  }
}

// Episodes that grow turn by turn, scored in one call or one by one, with more
// or less room for what they leave behind.
TEST(Scorer, ASessionIsNotComputedAgainAndChangesNoAnswer) {
  const std::string dir = MakeModel();
  Rng rng(2);
  std::vector<ScoreRequest> requests;
  for (int turn = 1; turn <= 4; ++turn) {
    for (int episode = 0; episode < 5; ++episode) {
      ScoreRequest r;
      if (turn > 1) r.tokens = requests[requests.size() - 5].tokens;
      const auto begin = static_cast<uint32_t>(r.tokens.size() + 9);
      for (int i = 0; i < 14; ++i)
        r.tokens.push_back(static_cast<int32_t>(rng.Below(60)));
      r.spans = {{begin, 5}};
      r.session = "episode " + std::to_string(episode);
      requests.push_back(std::move(r));
    }
  }
  // One that does not continue what it says: only what is alike counts.
  requests.push_back(requests[7]);
  requests.back().tokens[3] = (requests.back().tokens[3] + 1) % 60;

  uint64_t cached = 0;
  const auto score = [&](int64_t kv_tokens, bool one_by_one) {
    ScorerOptions options;
    options.kv_tokens = kv_tokens;
    auto loaded = MakeScorer(dir, options).value();
    cached = 0;
    std::vector<std::vector<float>> out;
    const auto add = [&](const std::vector<ScoreRequest>& some) {
      auto results = loaded.scorer->Score(some, {}).value();
      for (ScoreResult& r : results) {
        cached += r.cached;
        out.push_back(std::move(r.logprobs));
      }
    };
    if (!one_by_one) add(requests);
    for (size_t i = 0; one_by_one && i < requests.size(); ++i)
      add({requests[i]});
    return out;
  };
  const auto plain = score(0, false);
  EXPECT_EQ(cached, 0u);
  // Of each episode's turn all that the turn before left: 14, 28 and 42 tokens.
  const uint64_t all = 5 * (14 + 28 + 42) + 3;
  EXPECT_EQ(score(1024, false), plain);
  EXPECT_EQ(cached, all);
  EXPECT_EQ(score(1024, true), plain);
  EXPECT_EQ(cached, all);
  EXPECT_EQ(score(128, false), plain);  // room for two: others give way
  EXPECT_LT(cached, all);
  EXPECT_EQ(score(16, true), plain);  // for none that is long enough to last
}

TEST(Scorer, MissingModelIsAnErrorThatNamesTheFile) {
  const auto loaded = MakeScorer("/nowhere", {});
  ASSERT_FALSE(loaded.ok());
  EXPECT_NE(loaded.status().message().find("/nowhere/config.json"),
            std::string::npos);
}

}  // namespace
}  // namespace atod::teacher
