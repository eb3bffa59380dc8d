#include "common/model/model.h"

#include <cmath>
#include <string>
#include <vector>

#include "ATen/Parallel.h"
#include "common/base/rng.h"
#include "common/model/weights_io.h"
#include "gtest/gtest.h"

namespace atod::model {
namespace {

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

// Norm weights other than 1, so that their gradients are tested too.
Qwen3 RandomModel(const ModelConfig& config, uint64_t seed) {
  Qwen3 model = InitModel(config, "unit", seed).value();
  torch::NoGradGuard no_grad;
  Rng rng(seed + 1);
  for (torch::Tensor& p : model->parameters())
    if (p.dim() == 1)
      for (int64_t i = 0; i < p.numel(); ++i)
        p.data_ptr<float>()[i] += 0.2f * static_cast<float>(rng.Normal());
  return model;
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

std::vector<float> Values(const torch::Tensor& t) {
  const torch::Tensor c =
      t.detach().to(torch::kCPU, torch::kFloat32).contiguous();
  return {c.data_ptr<float>(), c.data_ptr<float>() + c.numel()};
}

double Largest(const torch::Tensor& t) { return t.abs().max().item<double>(); }

TEST(Score, CpuKernelsAgreeWithTorchOperations) {
  for (const bool tied : {true, false}) {
    Qwen3 model = RandomModel(Small(tied), 5);
    const auto batch = RandomBatch(90, 23, 120, 6);
    torch::NoGradGuard no_grad;
    const SpanLogProbs fast = ScoreSpans(model, batch, 0.7f, true);
    const SpanLogProbs plain = TorchScoreSpans(model, batch, 0.7f, true);
    EXPECT_LT(Largest(fast.logprobs - plain.logprobs), 1e-5);
    EXPECT_LT(Largest(fast.entropy - plain.entropy), 1e-5);
  }
}

TEST(Score, GradientsOfCpuKernelsAgreeWithTorchOperations) {
  for (const auto& [tied, with_entropy] :
       {std::pair(true, false), std::pair(false, false),
        std::pair(true, true)}) {
    Qwen3 model = RandomModel(Small(tied), 7);
    const auto batch = RandomBatch(90, 30, 100, 8);
    const auto gradients = [&, with_entropy = with_entropy](bool fast) {
      model->zero_grad();
      const SpanLogProbs out = fast ? ScoreSpans(model, batch, 0.7f, true)
                                    : TorchScoreSpans(model, batch, 0.7f, true);
      // Weights of either sign, unequal.
      const torch::Tensor w =
          torch::cos(torch::arange(out.logprobs.numel()).to(torch::kFloat32));
      const torch::Tensor sum = (out.logprobs * w).sum();
      (with_entropy ? sum + (out.entropy * w).sum() : sum).backward();
      std::vector<torch::Tensor> g;
      for (const torch::Tensor& p : model->OrderedParameters())
        g.push_back(p.grad().clone());
      return g;
    };
    const auto fast = gradients(true), plain = gradients(false);
    const auto specs = ParameterSpecs(model->config());
    for (size_t i = 0; i < specs.size(); ++i) {
      ASSERT_GT(Largest(plain[i]), 1e-3) << specs[i].name;
      EXPECT_LT(Largest(fast[i] - plain[i]) / Largest(plain[i]), 1e-4)
          << specs[i].name;
    }
  }
}

TEST(Score, TheGradientOfTheEntropyIsItsDerivative) {
  Qwen3 model = RandomModel(Small(), 8);
  const auto batch = RandomBatch(90, 3, 20, 9);
  const auto entropy = [&] {
    return ScoreSpans(model, batch, 0.7f, true).entropy.sum();
  };
  entropy().backward();
  for (torch::Tensor& p : model->OrderedParameters()) {
    // Along the gradient, where the change is largest.
    const torch::Tensor g = p.grad().clone();
    const double norm = g.norm().item<double>();
    torch::NoGradGuard no_grad;
    const torch::Tensor start = p.clone();
    const auto at = [&](double step) {
      p.copy_(start + g * (step / norm));
      return entropy().item<double>();
    };
    constexpr double kStep = 2e-3;
    const double slope = (at(kStep) - at(-kStep)) / (2 * kStep);
    p.copy_(start);
    EXPECT_NEAR(slope / norm, 1, 2e-2);
  }
}

TEST(Score, ResultsDoNotDependOnBatchingToTheBit) {
  Qwen3 model = RandomModel(Small(), 9);
  const auto batch = RandomBatch(90, 17, 200, 10);
  torch::NoGradGuard no_grad;
  const auto together = Values(ScoreSpans(model, batch, 1, false).logprobs);
  std::vector<float> alone;
  for (const ScoredSequence& s : batch)
    for (const float v : Values(ScoreSpans(model, {s}, 1, false).logprobs))
      alone.push_back(v);
  EXPECT_EQ(together, alone);
}

TEST(Score, GradientsDoNotDependOnThreadsToTheBit) {
  Qwen3 model = RandomModel(Small(), 9);
  const auto batch = RandomBatch(90, 40, 100, 10);
  std::vector<std::vector<float>> seen;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    model->zero_grad();
    ScoreSpans(model, batch, 1, false).logprobs.sum().backward();
    seen.push_back(Values(model->OrderedParameters()[2].grad()));
  }
  at::set_num_threads(1);
  EXPECT_EQ(seen[0], seen[1]);
  EXPECT_EQ(seen[0], seen[2]);
}

TEST(Weights, AreInstalledOrRefusedWhole) {
  Qwen3 a = RandomModel(Small(), 1), b = RandomModel(Small(), 2);
  weights::WeightSnapshot snapshot = ExportWeights(a, "float32").value();
  ASSERT_TRUE(ImportWeights(b, snapshot).ok());
  EXPECT_EQ(ExportWeights(b, "float32")->root_hash, snapshot.root_hash);
  snapshot.data[7] ^= 1;
  EXPECT_EQ(ImportWeights(b, snapshot).code(), absl::StatusCode::kDataLoss);
  ModelConfig other = Small();
  other.intermediate_size = 64;
  Qwen3 c = RandomModel(other, 3);
  const absl::Status s = ImportWeights(c, *ExportWeights(a, "float32"));
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(s.message().find("gate_proj"), std::string::npos) << s;
}

}  // namespace
}  // namespace atod::model
