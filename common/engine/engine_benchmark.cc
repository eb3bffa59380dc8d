// Rollout inference of the embedded default's model (0.22 M parameters): 64
// prompts of ~75 tokens, 5 sampled tokens each. Hidden size 72, which
// the CPU kernels do not have, takes the general path on torch operations.
#include <unistd.h>

#include "benchmark/benchmark.h"
#include "common/base/rng.h"
#include "common/engine/engine.h"
#include "common/model/model_files.h"
#include "common/model/threads.h"

namespace atod::engine {
namespace {

std::unique_ptr<ModelEngine> Open(int64_t hidden) {
  model::ModelConfig c;
  c.vocab_size = 540;
  c.hidden_size = hidden;
  c.intermediate_size = 192;
  c.num_hidden_layers = 3;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 32;
  c.max_position_embeddings = 512;
  c.rope_theta = 1e4;
  c.tie_word_embeddings = true;
  const std::string dir =
      "/tmp/atod_engine_benchmark." + std::to_string(getpid());
  if (!model::CreateModel(c, "unit", 1, dir).ok()) return nullptr;
  EngineOptions options;
  options.max_slots = 64;
  options.model.deterministic = {};  // torch where the kernels do not fit
  return OpenEngine(dir, options).value();
}

// Items are tokens, of prompts and responses.
void Rollout(benchmark::State& state) {
  model::SetComputeThreads(1);
  auto engine = Open(state.range(0));
  Rng rng(3);
  const int new_tokens = static_cast<int>(state.range(1));
  int64_t tokens = 0;
  for (auto _ : state) {
    for (int i = 0; i < 64; ++i) {
      EngineRequest r;
      r.id = i;
      r.sampling.max_tokens = new_tokens;
      const uint64_t length = 65 + rng.Below(20);
      for (uint64_t j = 0; j < length; ++j)
        r.prompt.push_back(static_cast<int32_t>(rng.Below(540)));
      tokens += static_cast<int64_t>(length) + new_tokens;
      if (!engine->Enqueue(std::move(r)).ok()) state.SkipWithError("enqueue");
    }
    while (engine->has_work())
      if (!engine->Step().ok()) state.SkipWithError("step");
  }
  state.SetItemsProcessed(tokens);
}
BENCHMARK(Rollout)
    ->ArgNames({"hidden", "new_tokens"})
    ->Args({64, 1})
    ->Args({64, 5})
    ->Args({64, 100})
    ->Args({72, 1})
    ->Args({72, 5})
    ->Args({72, 100})
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace atod::engine
