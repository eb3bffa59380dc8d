#include "services/cli/bench_command.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/engine/engine.h"
#include "common/model/threads.h"
#include "services/cli/back_end_flags.h"
#include "services/cli/bench_model.h"
#include "services/cli/bench_report.h"
#include "services/cli/json_lines.h"

namespace atod::cli {
namespace {

struct DecodeFlags {
  std::string model;
  BackEndFlags back_end;
  int batch = 16;
  uint32_t prompt = 512;
  uint32_t new_tokens = 64;
};

struct DecodeTimes {
  absl::Duration prompts;  // until each has its first token
  absl::Duration decoding;
  int64_t decoded = 0;  // tokens of that time
};

// Tokens that a request has by now; one that is over has all.
int64_t Sampled(const engine::ModelEngine& engine, const DecodeFlags& flags,
                uint64_t id) {
  const size_t living = engine.Sampled(id).size();
  return living > 0 ? static_cast<int64_t>(living) : flags.new_tokens;
}

// One batch from its prompts to the last token.
absl::StatusOr<DecodeTimes> Decode(engine::ModelEngine& engine,
                                   const DecodeFlags& flags, Rng& rng) {
  const uint64_t batch = static_cast<uint64_t>(flags.batch);
  for (uint64_t id = 0; id < batch; ++id) {
    engine::EngineRequest r{
        .id = id,
        .prompt = RandomTokens(rng, flags.prompt, engine.config().vocab_size)};
    r.sampling.max_tokens = flags.new_tokens;
    r.noise.sample = static_cast<uint32_t>(id);
    ATOD_RETURN_IF_ERROR(engine.Enqueue(std::move(r)));
  }
  DecodeTimes times;
  const absl::Time begin = absl::Now();
  // Prompts are computed in order: the last one's token comes last.
  while (engine.Sampled(batch - 1).empty())
    ATOD_RETURN_IF_ERROR(engine.Step().status());
  const absl::Time first = absl::Now();
  // Without those that decoded beside the last prompts.
  times.decoded = static_cast<int64_t>(batch) * flags.new_tokens;
  for (uint64_t id = 0; id < batch; ++id)
    times.decoded -= Sampled(engine, flags, id);
  while (engine.has_work()) ATOD_RETURN_IF_ERROR(engine.Step().status());
  times.prompts = first - begin;
  times.decoding = absl::Now() - first;
  return times;
}

absl::StatusOr<int> RunDecode(const DecodeFlags& flags) {
  model::SetComputeThreads(flags.back_end.threads);
  engine::EngineOptions options;
  options.model = OpenOptionsOf(flags.back_end);
  options.model.max_context = flags.prompt + flags.new_tokens;
  options.max_slots = flags.batch;
  // In few steps, so that few decode beside others' prompts.
  options.batch_tokens = std::max<int64_t>(options.batch_tokens, flags.batch);
  ATOD_ASSIGN_OR_RETURN(std::unique_ptr<model::LanguageModel> model,
                        model::LanguageModel::Open(flags.model, options.model));
  // No token ends a response.
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<engine::ModelEngine> engine,
                        engine::MakeEngine(std::move(model), {}, options));
  Rng rng(1);
  DecodeFlags warm_up = flags;
  warm_up.new_tokens = std::min<uint32_t>(flags.new_tokens, 4);
  ATOD_RETURN_IF_ERROR(Decode(*engine, warm_up, rng).status());
  ATOD_ASSIGN_OR_RETURN(const DecodeTimes times, Decode(*engine, flags, rng));
  nlohmann::json report = BenchReport(
      times.decoded, absl::ToDoubleSeconds(times.decoding), engine->back_end());
  const double prompts = absl::ToDoubleSeconds(times.prompts);
  report["prompt_seconds"] = prompts;
  report["prompt_tokens_per_second"] =
      static_cast<double>(flags.batch) * flags.prompt / prompts;
  PrintLine(report);
  return 0;
}

}  // namespace

void AddBenchCommands(Command app) {
  Command bench = app.Add("bench", "Speed of a model on random tokens");
  auto decode = std::make_shared<DecodeFlags>();
  Command command =
      bench.Add("decode", "Responses, by the engine that rollouts use",
                [decode] { return RunDecode(*decode); });
  command.Arg("--model", decode->model, "model folder").Required();
  command.Arg("--batch", decode->batch, "responses at once (16)")
      .Range(1, 4096);
  command.Arg("--prompt", decode->prompt, "tokens of each prompt (512)")
      .WholeNumber(1, 1 << 20);
  command.Arg("--new", decode->new_tokens, "tokens of each response (64)")
      .WholeNumber(2, 1 << 20);
  AddBackEndFlags(command, decode->back_end);
  AddBenchModelCommands(bench);
}

}  // namespace atod::cli
