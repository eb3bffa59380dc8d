// One step of the embedded size, a quarter of its episodes: windowed turns of
// about 77 tokens, 5 of them sampled, a model of 0.2 M parameters.
#include <filesystem>

#include "benchmark/benchmark.h"
#include "common/base/rng.h"
#include "common/model/model_files.h"
#include "services/learner/policy_trainer.h"
#include "services/learner/recipe_for_test.h"

namespace atod::learner {
namespace {

constexpr int kVocab = 540;

std::string ModelDir() {
  const std::string dir =
      std::filesystem::temp_directory_path() / "atod_policy_trainer_benchmark";
  model::ModelConfig config;
  config.vocab_size = kVocab;
  config.hidden_size = 64;
  config.intermediate_size = 192;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 32;
  config.max_position_embeddings = 256;
  config.rope_theta = 1e4;
  config.tie_word_embeddings = true;
  model::CreateModel(config, "unit", 1, dir).IgnoreError();
  return dir;
}

StepData MakeStep(int groups, int group_size) {
  Rng rng(1);
  StepData data;
  StepBatch& b = data.batch;
  for (int i = 0; i < groups * group_size; ++i) {
    b.trajectory_id.push_back(std::to_string(i));
    b.group.push_back(i / group_size);
    b.reward.push_back(rng.Below(2) * 10.0);
    const int turns = 15 + rng.Below(6);
    for (int k = 0; k < turns; ++k) {
      TrainSequence s;
      s.trajectory = i;
      const uint32_t prompt = 65 + rng.Below(15), length = 3 + rng.Below(5);
      for (uint32_t t = 0; t < prompt + length; ++t)
        s.tokens.push_back(rng.Below(kVocab));
      s.spans = {{prompt, length, b.token_begin.back()}};
      data.sequences.push_back(std::move(s));
      b.turn_index.push_back(k);
      b.valid_action.push_back(1);
      b.token_begin.push_back(b.token_begin.back() + length);
      for (uint32_t t = 0; t < length; ++t) {
        b.rollout_logprob.push_back(-rng.Uniform());
        b.teacher_logprob.push_back(-rng.Uniform());
      }
    }
    b.turn_begin.push_back(b.num_turns());
  }
  return data;
}

void BM_TrainStep(benchmark::State& state) {
  const auto device = OpenDevice("cpu").value();
  const auto communicator = MakeLocalCommunicator();
  PolicyTrainerOptions options;
  options.recipe = RecipeFor({});
  options.updates_per_step = 2;
  const auto trainer =
      PolicyTrainer::Load(ModelDir(), options, communicator.get(), device.get())
          .value();
  StepData data = MakeStep(2, 8);
  int64_t tokens = 0;
  for (const TrainSequence& s : data.sequences) tokens += s.tokens.size();
  uint32_t step = 0;
  for (auto _ : state) {
    ++step;
    const auto trained = trainer->TrainStep(
        {.step = step, .lr = 1e-4, .coefficients = options.recipe.At(step)},
        data);
    if (!trained.ok()) state.SkipWithError("step failed");
    state.counters["old_s"] = trained->metrics.at("timing/old_logprob_seconds");
    state.counters["update_s"] = trained->metrics.at("timing/update_seconds");
  }
  state.SetItemsProcessed(tokens * state.iterations());
}
BENCHMARK(BM_TrainStep)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace atod::learner
