// Training and scoring of the embedded default's model (0.22 M parameters,
// windowed prompts of ~75 tokens of which ~5 are scored): own CPU kernels
// against torch's operations, in the same run.
#include "ATen/Parallel.h"
#include "benchmark/benchmark.h"
#include "common/base/rng.h"
#include "common/model/model.h"

namespace atod::model {
namespace {

Qwen3 TinyModel() {
  ModelConfig c;
  c.vocab_size = 540;
  c.hidden_size = 64;
  c.intermediate_size = 192;
  c.num_hidden_layers = 3;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 32;
  c.max_position_embeddings = 512;
  c.rope_theta = 1e4;
  c.tie_word_embeddings = true;
  return InitModel(c, "unit", 1).value();
}

std::vector<ScoredSequence> Turns(int count, int64_t* tokens) {
  Rng rng(2);
  std::vector<ScoredSequence> batch(count);
  *tokens = 0;
  for (ScoredSequence& s : batch) {
    const uint32_t length = 65 + static_cast<uint32_t>(rng.Below(25));
    for (uint32_t i = 0; i < length; ++i)
      s.tokens.push_back(static_cast<int32_t>(rng.Below(540)));
    s.spans.push_back({length - 5, 5});
    *tokens += length;
  }
  return batch;
}

template <SpanLogProbs (*kScore)(Qwen3&, const std::vector<ScoredSequence>&,
                                 float, bool)>
void Train(benchmark::State& state) {
  at::set_num_threads(1);
  Qwen3 model = TinyModel();
  int64_t tokens;
  const auto batch = Turns(static_cast<int>(state.range(0)), &tokens);
  for (auto _ : state) {
    model->zero_grad();
    kScore(model, batch, 1, false).logprobs.sum().backward();
  }
  state.SetItemsProcessed(state.iterations() * tokens);
}
BENCHMARK(Train<ScoreSpans>)->Name("train/kernels")->Arg(32)->Arg(128);
BENCHMARK(Train<TorchScoreSpans>)->Name("train/torch")->Arg(32)->Arg(128);

template <SpanLogProbs (*kScore)(Qwen3&, const std::vector<ScoredSequence>&,
                                 float, bool)>
void Score(benchmark::State& state) {
  at::set_num_threads(1);
  torch::NoGradGuard no_grad;
  Qwen3 model = TinyModel();
  int64_t tokens;
  const auto batch = Turns(static_cast<int>(state.range(0)), &tokens);
  for (auto _ : state) benchmark::DoNotOptimize(kScore(model, batch, 1, false));
  state.SetItemsProcessed(state.iterations() * tokens);
}
BENCHMARK(Score<ScoreSpans>)->Name("score/kernels")->Arg(32)->Arg(128);
BENCHMARK(Score<TorchScoreSpans>)->Name("score/torch")->Arg(32)->Arg(128);

}  // namespace
}  // namespace atod::model
