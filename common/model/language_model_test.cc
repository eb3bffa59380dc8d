// Both back ends behind the seam: the same answers from each.
#include "common/model/language_model.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "common/base/rng.h"
#include "common/model/arena.h"
#include "common/model/model_files.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "torch/utils.h"

namespace atod::model {
namespace {

using ::testing::HasSubstr;

ModelConfig Small(bool tied = true) {
  ModelConfig c;
  c.vocab_size = 90;
  c.hidden_size = 32;
  c.intermediate_size = 48;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 16;
  c.max_position_embeddings = 256;
  c.rope_theta = 1e4;
  c.tie_word_embeddings = tied;
  return c;
}

ModelConfig Experts() {
  ModelConfig c = Small(false);
  c.num_experts = 12;
  c.num_experts_per_tok = 3;
  c.moe_intermediate_size = 16;
  c.norm_topk_prob = true;
  return c;
}

using Model = std::unique_ptr<LanguageModel>;

// The model of a folder with random weights; norms other than 1, so that their
// gradients are tested too.
Model Open(const ModelConfig& config, uint64_t seed, OpenOptions options) {
  const std::string dir = testing::TempDir() + "/atod_language_model_test." +
                          std::to_string(getpid());
  EXPECT_TRUE(CreateModel(config, "unit", seed, dir).ok());
  auto model = LanguageModel::Open(dir, options);
  EXPECT_TRUE(model.ok()) << model.status();
  torch::NoGradGuard no_grad;
  Rng rng(seed + 1);
  ParameterArena& arena = (*model)->arena();
  for (size_t i = 0; i < arena.specs().size(); ++i) {
    if (arena.specs()[i].shape.size() > 1) continue;
    torch::Tensor v =
        arena.View(arena.masters.defined() ? arena.masters : arena.values, i);
    for (int64_t j = 0; j < v.numel(); ++j)
      v[j] += 0.2 * static_cast<double>(rng.Normal());
  }
  EXPECT_TRUE((*model)->ParametersChanged().ok());
  return *std::move(model);
}

// cpu-exact, or torch on the device that $ATOD_TEST_DEVICE names.
OpenOptions On(bool exact, bool gradients = false) {
  const char* device = std::getenv("ATOD_TEST_DEVICE");
  return {.device = exact || device == nullptr ? "cpu" : device,
          .deterministic = exact,
          .gradients = gradients,
          .max_context = 256};
}

std::vector<ScoredSequence> RandomBatch(int64_t vocab, int count, int longest,
                                        uint64_t seed) {
  Rng rng(seed);
  std::vector<ScoredSequence> batch;
  for (int i = 0; i < count; ++i) {
    ScoredSequence s;
    const int length = 8 + static_cast<int>(rng.Below(longest - 8));
    for (int j = 0; j < length; ++j)
      s.tokens.push_back(static_cast<int32_t>(rng.Below(vocab)));
    s.spans.push_back({1 + static_cast<uint32_t>(rng.Below(3)), 2});
    s.spans.push_back({static_cast<uint32_t>(length) - 3, 3});
    batch.push_back(s);
  }
  return batch;
}

double Largest(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i)
    worst = std::max(worst, std::abs(double{a[i]} - double{b[i]}));
  return worst;
}

TEST(BackEnds, ScoreAlike) {
  for (const bool tied : {true, false}) {
    const auto batch = RandomBatch(90, 23, 120, 6);
    const ScoreOptions options = {0.7f, true, 4};
    const auto a = Open(Small(tied), 5, On(true))->Score(batch, options);
    const auto b = Open(Small(tied), 5, On(false))->Score(batch, options);
    ASSERT_TRUE(a.ok() && b.ok());
    EXPECT_LT(Largest(a->logprobs, b->logprobs), 1e-5);
    EXPECT_LT(Largest(a->entropy, b->entropy), 1e-5);
    EXPECT_LT(Largest(a->top_logprobs, b->top_logprobs), 1e-5);
    EXPECT_EQ(a->top_ids, b->top_ids);
  }
}

TEST(BackEnds, HaveTheSameGradients) {
  for (const auto& [tied, with_entropy] :
       {std::pair(true, false), std::pair(false, false),
        std::pair(true, true)}) {
    const auto batch = RandomBatch(90, 30, 100, 8);
    const auto gradients = [&, tied = tied,
                            with_entropy = with_entropy](bool exact) {
      const Model model = Open(Small(tied), 7, On(exact, true));
      const auto out = model->ScoreForBackward(batch, {0.7f, true, 0});
      EXPECT_TRUE(out.ok()) << out.status();
      // Weights of either sign, unequal.
      std::vector<float> d(out->logprobs.size());
      for (size_t i = 0; i < d.size(); ++i)
        d[i] = std::cos(static_cast<float>(i));
      const absl::Status done =
          model->Backward(d, with_entropy ? d : std::vector<float>());
      EXPECT_TRUE(done.ok()) << done;
      std::vector<torch::Tensor> all;
      for (size_t i = 0; i < model->arena().specs().size(); ++i)
        all.push_back(
            model->arena().View(model->arena().gradients, i).cpu().clone());
      return all;
    };
    const auto exact = gradients(true), free = gradients(false);
    const auto specs = ParameterSpecs(Small(tied));
    for (size_t i = 0; i < specs.size(); ++i) {
      const double size = free[i].abs().max().item<double>();
      ASSERT_GT(size, 1e-3) << specs[i].name;
      EXPECT_LT((exact[i] - free[i]).abs().max().item<double>() / size, 1e-4)
          << specs[i].name;
    }
  }
}

// The change of a sum of log-probs and entropies along the gradient, where it
// is largest, against the gradient's own length.
void ExpectTheGradientIsTheDerivative(const ModelConfig& config, bool exact) {
  const Model model = Open(config, 8, On(exact, true));
  const auto batch = RandomBatch(90, 6, 40, 9);
  const ScoreOptions options = {0.7f, true, 0};
  const auto sum = [&](const ScoreOutput& out) {
    double total = 0;
    for (const float x : out.logprobs) total += x;
    for (const float x : out.entropy) total += 2 * x;
    return total;
  };
  ParameterArena& arena = model->arena();
  const auto out = model->ScoreForBackward(batch, options);
  ASSERT_TRUE(out.ok()) << out.status();
  const size_t n = out->logprobs.size();
  ASSERT_TRUE(
      model->Backward(std::vector<float>(n, 1), std::vector<float>(n, 2)).ok());
  const torch::Tensor start = arena.masters.clone();
  for (size_t i = 0; i < arena.specs().size(); ++i) {
    const torch::Tensor g = arena.View(arena.gradients, i);
    const double norm = g.norm().item<double>();
    ASSERT_GT(norm, 0) << arena.specs()[i].name;
    const auto at = [&](double step) {
      arena.View(arena.masters, i)
          .copy_(arena.View(start, i) + g * (step / norm));
      EXPECT_TRUE(model->ParametersChanged().ok());
      return sum(model->Score(batch, options).value());
    };
    constexpr double kStep = 2e-3;
    const double slope = (at(kStep) - at(-kStep)) / (2 * kStep);
    at(0);
    EXPECT_NEAR(slope / norm, 1, 3e-2) << arena.specs()[i].name;
  }
}

TEST(BackEnds, TheGradientIsTheDerivativeOnCpuExact) {
  ExpectTheGradientIsTheDerivative(Small(), true);
}
TEST(BackEnds, TheGradientIsTheDerivativeOnTorch) {
  ExpectTheGradientIsTheDerivative(Small(false), false);
}

TEST(BackEnds, GradientsAddUpOverMicroBatches) {
  for (const bool exact : {true, false}) {
    const Model model = Open(Small(), 3, On(exact, true));
    const auto batch = RandomBatch(90, 4, 40, 5);
    const auto run = [&](const std::vector<ScoredSequence>& part) {
      const size_t n = model->ScoreForBackward(part, {})->logprobs.size();
      ASSERT_TRUE(model->Backward(std::vector<float>(n, 1), {}).ok());
    };
    run(batch);
    const torch::Tensor whole = model->arena().gradients.clone();
    model->arena().gradients.zero_();
    for (const ScoredSequence& s : batch) run({s});
    const double size = whole.abs().max().item<double>();
    EXPECT_LT(
        (whole - model->arena().gradients).abs().max().item<double>() / size,
        1e-5);
  }
}

// Tokens of a greedy or sampled continuation, chunk tokens of prompt a step.
std::vector<SampledToken> Continue(LanguageModel& model,
                                   const std::vector<int32_t>& prompt,
                                   Region region, int64_t chunk,
                                   float temperature) {
  std::vector<SampledToken> out, sampled;
  Rng noise(4);
  std::vector<int32_t> tokens = prompt;
  int64_t done = 0;
  while (out.size() < 12) {
    const int64_t n =
        std::min<int64_t>(chunk, static_cast<int64_t>(tokens.size()) - done);
    StepInput in;
    in.tokens = absl::MakeConstSpan(tokens).subspan(done, n);
    in.position = done;
    in.region = region;
    done += n;
    if (done == static_cast<int64_t>(tokens.size()))
      in.sample = Sampling{temperature, 1, 0, noise.Uniform()};
    const absl::Status status = model.Step({in}, &sampled);
    EXPECT_TRUE(status.ok()) << status;
    if (!status.ok()) return out;
    if (sampled.empty()) continue;
    out.push_back(sampled[0]);
    tokens.push_back(sampled[0].token);
  }
  return out;
}

TEST(BackEnds, ContinueAlikeFromChunksAndCopies) {
  for (const ModelConfig& config : {Small(), Experts()}) {
    for (const float temperature : {0.0f, 0.8f}) {
      std::vector<std::vector<SampledToken>> all;
      for (const bool exact : {true, false}) {
        if (exact && config.num_experts > 0) continue;
        const Model model = Open(config, 5, On(exact));
        ASSERT_TRUE(model->AllocateCache(256).ok());
        const auto prompt = RandomBatch(90, 1, 70, 3)[0].tokens;
        for (const int64_t chunk : {1000, 16, 1})
          all.push_back(
              Continue(*model, prompt, {96, 112}, chunk, temperature));
        // A copy goes on as the region it was copied from.
        const int64_t length = static_cast<int64_t>(prompt.size());
        std::vector<SampledToken> sampled;
        const StepInput in = {
            absl::MakeConstSpan(prompt).first(length - 1), 0, {16, 80}, {}};
        ASSERT_TRUE(model->Step({in}, &sampled).ok());
        ASSERT_TRUE(model->CopyCache({16, 80}, {0, 96}, length - 1).ok());
        const StepInput last = {absl::MakeConstSpan(prompt).last(1),
                                length - 1,
                                {0, 96},
                                Sampling{temperature, 1, 0, Rng(4).Uniform()}};
        ASSERT_TRUE(model->Step({last}, &sampled).ok());
        ASSERT_EQ(sampled.size(), 1u);
        EXPECT_EQ(sampled[0].token, all.back()[0].token);
      }
      for (const auto& other : all) {
        ASSERT_EQ(other.size(), all[0].size());
        for (size_t i = 0; i < other.size(); ++i) {
          EXPECT_EQ(other[i].token, all[0][i].token) << i;
          EXPECT_NEAR(other[i].logprob, all[0][i].logprob, 1e-5) << i;
        }
      }
    }
  }
}

void Append(const absl::StatusOr<ScoreOutput>& from, std::vector<float>& to) {
  ASSERT_TRUE(from.ok()) << from.status();
  to.insert(to.end(), from->logprobs.begin(), from->logprobs.end());
}

TEST(BackEnds, SharedPrefixesAndSessionsChangeNoScore) {
  for (const bool exact : {true, false}) {
    const Model model = Open(Small(), 5, On(exact));
    ASSERT_TRUE(model->AllocateCache(512).ok());
    auto batch = RandomBatch(90, 6, 60, 8);
    const auto prefix = RandomBatch(90, 1, 150, 2)[0].tokens;
    for (ScoredSequence& s : batch) {
      s.tokens.insert(s.tokens.begin(), prefix.begin(), prefix.end());
      for (TokenSpan& span : s.spans)
        span.begin += static_cast<uint32_t>(prefix.size());
    }
    const auto together = model->Score(batch, {}).value().logprobs;
    std::vector<float> alone, session;
    for (ScoredSequence s : batch) {
      Append(model->Score({s}, {}), alone);
      // The same in two calls that share a region.
      ScoredSequence first = s;
      first.region = s.region = {64, 240};
      first.tokens.resize(s.spans[1].begin);
      first.spans.resize(1);
      ScoredSequence second = s;
      second.cached = static_cast<int64_t>(first.tokens.size()) - 1;
      second.spans = {s.spans[1]};
      Append(model->Score({first}, {}), session);
      Append(model->Score({second}, {}), session);
    }
    EXPECT_LE(Largest(together, alone), exact ? 0 : 1e-5);
    EXPECT_LE(Largest(together, session), exact ? 0 : 1e-5);
  }
}

TEST(BackEnds, ExpertsWithoutTokensDoNoHarm) {
  ModelConfig config = Experts();
  config.num_experts = 40;
  config.num_experts_per_tok = 2;
  const Model model = Open(config, 5, On(false, true));
  ParameterArena& arena = model->arena();
  // Half of the experts have logits near 0: never among the best two.
  arena.View(arena.masters, arena.Find("model.layers.0.mlp.gate.weight"))
      .narrow(0, 20, 20)
      .mul_(1e-4);
  ASSERT_TRUE(model->ParametersChanged().ok());
  const auto batch = RandomBatch(90, 3, 30, 4);
  const auto out = model->ScoreForBackward(batch, {});
  ASSERT_TRUE(out.ok()) << out.status();
  ASSERT_TRUE(
      model->Backward(std::vector<float>(out->logprobs.size(), 1), {}).ok());
  double idle = 0, busy = 0;
  for (int e = 0; e < 40; ++e) {
    const std::string name =
        "model.layers.0.mlp.experts." + std::to_string(e) + ".down_proj.weight";
    (e < 20 ? busy : idle) += arena.View(arena.gradients, arena.Find(name))
                                  .abs()
                                  .max()
                                  .item<double>();
  }
  EXPECT_EQ(idle, 0);
  EXPECT_GT(busy, 0);
}

TEST(BackEnds, TheGradientOfExpertsIsTheDerivative) {
  ExpectTheGradientIsTheDerivative(Experts(), false);
}

TEST(BackEnds, Bfloat16IsNearFloat32AndTrainsWithFloat32Masters) {
  const auto batch = RandomBatch(90, 8, 60, 4);
  OpenOptions low = On(false, true);
  low.dtype = "bfloat16";
  const Model model = Open(Small(), 5, low);
  const auto exact = Open(Small(), 5, On(true))->Score(batch, {}).value();
  const auto near = model->Score(batch, {}).value();
  EXPECT_LT(Largest(exact.logprobs, near.logprobs), 0.1);
  EXPECT_EQ(model->arena().values.scalar_type(), torch::kBFloat16);
  EXPECT_EQ(model->arena().masters.scalar_type(), torch::kFloat32);
  EXPECT_EQ(model->arena().gradients.scalar_type(), torch::kFloat32);
  EXPECT_EQ(model->back_end().dtype, "bfloat16");
}

// Frozen bfloat16 weights are laid out in their own memory for products.
TEST(BackEnds, WeightsOfAUsedBfloat16ModelAreStillItsWeights) {
  for (const bool tied : {true, false}) {
    OpenOptions low = On(false);
    low.dtype = "bfloat16";
    const Model model = Open(Small(tied), 5, low);
    const auto batch = RandomBatch(90, 8, 60, 4);
    const std::string hash = model->WeightsHash().value();
    const auto before = model->Score(batch, {}).value().logprobs;
    EXPECT_EQ(model->WeightsHash().value(), hash);
    EXPECT_EQ(model->Score(batch, {})->logprobs, before);
    ASSERT_TRUE(model->Install(model->Export("bfloat16").value()).ok());
    EXPECT_EQ(model->Score(batch, {})->logprobs, before);
  }
}

TEST(BackEnds, WeightsAreInstalledOrRefusedWhole) {
  for (const bool exact : {true, false}) {
    const Model a = Open(Small(), 1, On(exact)),
                b = Open(Small(), 2, On(exact));
    const auto batch = RandomBatch(90, 3, 30, 4);
    weights::WeightSnapshot snapshot = a->Export("float32").value();
    ASSERT_TRUE(b->Install(snapshot).ok());
    EXPECT_EQ(b->WeightsHash().value(), snapshot.root_hash);
    EXPECT_EQ(b->Score(batch, {})->logprobs, a->Score(batch, {})->logprobs);
    snapshot.data[7] ^= 1;
    EXPECT_EQ(b->Install(snapshot).code(), absl::StatusCode::kDataLoss);
    ModelConfig other = Small();
    other.intermediate_size = 64;
    const Model c = Open(other, 3, On(exact));
    const absl::Status s = c->Install(*a->Export("float32"));
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(s.message()), HasSubstr("gate_proj"));
  }
}

TEST(BackEnds, NumbersThatOverflowAreOneErrorAndTheModelLivesOn) {
  for (const bool exact : {true, false}) {
    const Model model = Open(Small(), 1, On(exact));
    ASSERT_TRUE(model->AllocateCache(64).ok());
    const weights::WeightSnapshot good = model->Export("float32").value();
    torch::NoGradGuard no_grad;
    model->arena().values[0] = NAN;
    ASSERT_TRUE(model->ParametersChanged().ok());
    ScoredSequence s = {{0, 0, 1, 2}, {{2, 2}}};
    EXPECT_EQ(model->Score({s}, {}).status().code(),
              absl::StatusCode::kFailedPrecondition);
    std::vector<SampledToken> sampled;
    const std::vector<int32_t> prompt = {0, 0, 1};
    const StepInput in = {prompt, 0, {0, 16}, Sampling{}};
    EXPECT_EQ(model->Step({in}, &sampled).code(),
              absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(sampled.empty());
    ASSERT_TRUE(model->Install(good).ok());
    EXPECT_TRUE(model->Score({s}, {}).ok());
    EXPECT_TRUE(model->Step({in}, &sampled).ok());
  }
}

TEST(Open, SaysWhatItCannotDoAndNeverFallsBack) {
  const std::string dir =
      testing::TempDir() + "/atod_open_test." + std::to_string(getpid());
  const auto error = [&](const ModelConfig& config, OpenOptions options) {
    EXPECT_TRUE(CreateModel(config, "unit", 1, dir).ok());
    const auto model = LanguageModel::Open(dir, options);
    EXPECT_EQ(model.status().code(), absl::StatusCode::kFailedPrecondition);
    return std::string(model.status().message());
  };
  OpenOptions options;
  options.dtype = "bfloat16";
  EXPECT_THAT(error(Small(), options), HasSubstr("dtype bfloat16"));
  EXPECT_THAT(error(Experts(), {}), HasSubstr("a mixture of experts"));
  ModelConfig odd = Small();
  odd.hidden_size = 24;
  EXPECT_THAT(error(odd, {}), HasSubstr("hidden_size"));
  options = {};
  options.device = "cuda";
  options.deterministic = false;
  EXPECT_THAT(error(Small(), options), HasSubstr("device"));
  // Unset: what can run it, and it says so.
  options = {};
  options.deterministic = std::nullopt;
  EXPECT_TRUE(CreateModel(odd, "unit", 1, dir).ok());
  EXPECT_EQ(LanguageModel::Open(dir, options).value()->back_end().name,
            "torch");
  EXPECT_TRUE(CreateModel(Small(), "unit", 1, dir).ok());
  EXPECT_EQ(LanguageModel::Open(dir, options).value()->back_end().name,
            "cpu-exact");
}

}  // namespace
}  // namespace atod::model
