#include "services/cli/bench_model.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/base/stopwatch.h"
#include "common/model/threads.h"
#include "services/cli/back_end_flags.h"
#include "services/cli/bench_report.h"
#include "services/cli/json_lines.h"

namespace atod::cli {
namespace {

struct BenchFlags {
  std::string model;
  BackEndFlags back_end;
  int batch = 16, prompt = 512, fresh = 64;
};

// What is measured on `batch` sequences.
using Measured = std::function<absl::Status(
    model::LanguageModel&, const std::vector<model::ScoredSequence>&)>;

absl::Status Score(model::LanguageModel& model,
                   const std::vector<model::ScoredSequence>& batch) {
  return model.Score(batch, {}).status();
}

absl::Status Train(model::LanguageModel& model,
                   const std::vector<model::ScoredSequence>& batch) {
  ATOD_ASSIGN_OR_RETURN(const model::ScoreOutput out,
                        model.ScoreForBackward(batch, {}));
  const size_t n = out.logprobs.size();
  return model.Backward(std::vector<float>(n, -1.0f / static_cast<float>(n)),
                        {});
}

absl::StatusOr<int> Run(const BenchFlags& flags, bool gradients,
                        const Measured& measured) {
  model::SetComputeThreads(flags.back_end.threads);
  model::OpenOptions options = OpenOptionsOf(flags.back_end);
  options.gradients = gradients;
  options.max_context = flags.prompt + flags.fresh;
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<model::LanguageModel> model,
                        model::LanguageModel::Open(flags.model, options));
  Rng rng(1);
  std::vector<model::ScoredSequence> batch(flags.batch);
  for (model::ScoredSequence& s : batch) {
    s.tokens =
        RandomTokens(rng, options.max_context, model->config().vocab_size);
    s.spans = {{static_cast<uint32_t>(flags.prompt),
                static_cast<uint32_t>(flags.fresh)}};
  }
  // Once to warm up, on one sequence.
  ATOD_RETURN_IF_ERROR(measured(*model, {batch[0]}));
  RealClock clock;
  Stopwatch watch(&clock);
  ATOD_RETURN_IF_ERROR(measured(*model, batch));
  PrintLine(BenchReport(int64_t{flags.batch} * options.max_context, watch.Lap(),
                        model->back_end()));
  return 0;
}

void Add(Command bench, const std::string& name, const std::string& summary,
         bool gradients, Measured measured) {
  auto flags = std::make_shared<BenchFlags>();
  Command command = bench.Add(name, summary,
                              [=] { return Run(*flags, gradients, measured); });
  command.Arg("--model", flags->model, "model folder").Required();
  command.Arg("--batch", flags->batch, "sequences (16)").Range(1, 4096);
  command.Arg("--prompt", flags->prompt, "tokens before the scored ones (512)")
      .Range(1, 1 << 20);
  command.Arg("--new", flags->fresh, "scored tokens of each sequence (64)")
      .Range(1, 1 << 20);
  AddBackEndFlags(command, flags->back_end);
}

}  // namespace

void AddBenchModelCommands(Command bench) {
  Add(bench, "score", "One packed forward, as the teacher scores", false,
      Score);
  Add(bench, "train", "One packed forward and backward, as the learner trains",
      true, Train);
}

}  // namespace atod::cli
