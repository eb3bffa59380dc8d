// Training and scoring of the embedded default's model (0.22 M parameters,
// windowed prompts of ~75 tokens of which ~5 are scored): both back ends in the
// same run.
#include <filesystem>

#include "ATen/Parallel.h"
#include "benchmark/benchmark.h"
#include "common/base/rng.h"
#include "common/model/language_model.h"
#include "common/model/model_files.h"

namespace atod::model {
namespace {

std::unique_ptr<LanguageModel> TinyModel(bool exact) {
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
  const std::string dir =
      std::filesystem::temp_directory_path() / "atod_model_benchmark";
  CreateModel(c, "unit", 1, dir).IgnoreError();
  at::set_num_threads(1);
  return LanguageModel::Open(dir, {.deterministic = exact, .gradients = true})
      .value();
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

void Train(benchmark::State& state, bool exact) {
  const auto model = TinyModel(exact);
  int64_t tokens;
  const auto batch = Turns(static_cast<int>(state.range(0)), &tokens);
  for (auto _ : state) {
    const size_t n = model->ScoreForBackward(batch, {})->logprobs.size();
    model->Backward(std::vector<float>(n, 1), {}).IgnoreError();
    model->ParametersChanged().IgnoreError();
  }
  state.SetItemsProcessed(state.iterations() * tokens);
}
BENCHMARK_CAPTURE(Train, exact, true)->Arg(32)->Arg(128);
BENCHMARK_CAPTURE(Train, torch, false)->Arg(32)->Arg(128);

void Score(benchmark::State& state, bool exact) {
  const auto model = TinyModel(exact);
  int64_t tokens;
  const auto batch = Turns(static_cast<int>(state.range(0)), &tokens);
  for (auto _ : state) benchmark::DoNotOptimize(model->Score(batch, {}));
  state.SetItemsProcessed(state.iterations() * tokens);
}
BENCHMARK_CAPTURE(Score, exact, true)->Arg(32)->Arg(128);
BENCHMARK_CAPTURE(Score, torch, false)->Arg(32)->Arg(128);

}  // namespace
}  // namespace atod::model
