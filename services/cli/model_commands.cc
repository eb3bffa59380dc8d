#include "services/cli/model_commands.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/base/temperature.h"
#include "common/engine/engine.h"
#include "common/model/model_config.h"
#include "common/model/model_files.h"
#include "common/model/threads.h"
#include "common/tokenizer/tokenizer.h"
#include "services/cli/back_end_flags.h"
#include "services/cli/json_lines.h"
#include "services/learner/sft_trainer.h"
#include "services/teacher/scorer.h"

namespace atod::cli {
namespace {

using nlohmann::json;

absl::Status CheckRow(const json& row,
                      std::initializer_list<std::string_view> known) {
  return row.is_object() ? CheckKeys(row, known, "") : absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> TokensOf(const json& row) {
  const json ids = row.is_object() ? row.value("token_ids", json()) : row;
  if (!row.is_object() || !ids.is_array()) {
    return BadInput({.field = "token_ids",
                     .found = JsonPreview(ids),
                     .expected = "an object with a list of token ids"});
  }
  std::vector<int32_t> tokens;
  for (const json& id : ids) {
    if (!id.is_number_integer() || id < 0 || id > INT32_MAX) {
      return BadInput({.field = "token_ids",
                       .found = JsonPreview(id),
                       .expected = "a token id"});
    }
    tokens.push_back(id.get<int32_t>());
  }
  return tokens;
}

absl::StatusOr<std::vector<teacher::TokenSpan>> SpansOf(const json& row) {
  const json list = row.value("spans", json());
  if (!list.is_array()) {
    return BadInput({.field = "spans",
                     .found = JsonPreview(list),
                     .expected = "a list of [begin, length]"});
  }
  std::vector<teacher::TokenSpan> spans;
  for (const json& span : list) {
    if (!span.is_array() || span.size() != 2 || !span[0].is_number_integer() ||
        !span[1].is_number_integer() || span[0] < 0 || span[0] > INT32_MAX ||
        span[1] < 0 || span[1] > INT32_MAX) {
      return BadInput({.field = "spans",
                       .found = JsonPreview(span),
                       .expected = "[begin, length]"});
    }
    spans.push_back({span[0].get<uint32_t>(), span[1].get<uint32_t>()});
  }
  return spans;
}

std::string DtypeOf(const std::string& flag) {
  return flag == "bf16" ? "bfloat16" : "float32";
}

absl::Status CheckTemperature(const char* command, float t, bool or_greedy) {
  if ((t >= kMinTemperature && t <= kMaxTemperature) || (or_greedy && t == 0))
    return absl::OkStatus();
  return BadInput(
      {command, "--temperature", 0, absl::StrCat(t),
       absl::StrCat(or_greedy ? "0 (greedy), or " : "", "a number from ",
                    kMinTemperature, " to ", kMaxTemperature)});
}

struct ScoreFlags {
  std::string model, input;
  BackEndFlags back_end;
  float temperature = 1;
};

absl::StatusOr<int> RunScore(const ScoreFlags& flags) {
  ATOD_RETURN_IF_ERROR(CheckTemperature("score", flags.temperature, false));
  model::SetComputeThreads(flags.back_end.threads);
  teacher::ScorerOptions options;
  const model::OpenOptions open = OpenOptionsOf(flags.back_end);
  options.dtype = open.dtype;
  options.device = open.device;
  options.deterministic = open.deterministic;
  ATOD_ASSIGN_OR_RETURN(const teacher::LoadedScorer loaded,
                        teacher::MakeScorer(flags.model, options));
  const uint32_t vocab = static_cast<uint32_t>(loaded.config.vocab_size);
  std::vector<teacher::ScoreRequest> requests;
  const auto score = [&]() -> absl::Status {
    ATOD_ASSIGN_OR_RETURN(
        const std::vector<teacher::ScoreResult> results,
        loaded.scorer->Score(requests, {flags.temperature, false}));
    for (size_t i = 0; i < requests.size(); ++i) {
      json spans = json::array();
      auto next = results[i].logprobs.begin();
      for (const teacher::TokenSpan& span : requests[i].spans) {
        spans.push_back(std::vector<double>(next, next + span.length));
        next += span.length;
      }
      PrintLine({{"logprobs", std::move(spans)}});
    }
    requests.clear();
    return absl::OkStatus();
  };
  ATOD_RETURN_IF_ERROR(
      ForEachLineOf(flags.input, [&](const json& row) -> absl::Status {
        teacher::ScoreRequest r;
        ATOD_RETURN_IF_ERROR(CheckRow(row, {"id", "token_ids", "spans"}));
        ATOD_ASSIGN_OR_RETURN(r.tokens, TokensOf(row));
        ATOD_ASSIGN_OR_RETURN(r.spans, SpansOf(row));
        ATOD_RETURN_IF_ERROR(teacher::Validate(r, vocab, loaded.max_context));
        requests.push_back(std::move(r));
        // A few lines at a time bound memory and share forwards.
        return requests.size() < 256 ? absl::OkStatus() : score();
      }));
  ATOD_RETURN_IF_ERROR(score());
  PrintBackEnd(loaded.back_end);
  return 0;
}

struct GenerateFlags {
  std::string model, input;
  BackEndFlags back_end;
  uint64_t seed = 0;
  engine::SamplingParams sampling;
  int slots = 64;
};

struct Prompts {
  std::vector<json> ids;
  std::vector<engine::EngineRequest> requests;
  int64_t longest = 0;  // prompt and response
};

// Request number i draws the noise of sample i: a line's answer depends on
// the seed and its place in the file alone.
absl::StatusOr<Prompts> ReadPrompts(const GenerateFlags& flags) {
  Prompts out;
  ATOD_RETURN_IF_ERROR(
      ForEachLineOf(flags.input, [&](const json& row) -> absl::Status {
        engine::EngineRequest r;
        r.id = out.ids.size();
        ATOD_RETURN_IF_ERROR(CheckRow(row, {"id", "token_ids"}));
        ATOD_ASSIGN_OR_RETURN(r.prompt, TokensOf(row));
        const json id = row.value("id", json());
        if (!id.is_string()) {
          return BadInput({.field = "id",
                           .found = JsonPreview(id),
                           .expected = "a string"});
        }
        r.sampling = flags.sampling;
        r.noise.run_seed = flags.seed;
        r.noise.sample = static_cast<uint32_t>(out.ids.size());
        out.longest =
            std::max(out.longest, static_cast<int64_t>(r.prompt.size()) +
                                      flags.sampling.max_tokens);
        out.ids.push_back(id);
        out.requests.push_back(std::move(r));
        return absl::OkStatus();
      }));
  return out;
}

absl::StatusOr<int> RunGenerate(const GenerateFlags& flags) {
  ATOD_RETURN_IF_ERROR(
      CheckTemperature("generate", flags.sampling.temperature, true));
  ATOD_ASSIGN_OR_RETURN(Prompts prompts, ReadPrompts(flags));
  model::SetComputeThreads(flags.back_end.threads);
  engine::EngineOptions options;
  options.model = OpenOptionsOf(flags.back_end);
  options.max_slots = flags.slots;
  options.batch_tokens = std::max<int64_t>(options.batch_tokens, flags.slots);
  options.max_queue = static_cast<int64_t>(prompts.requests.size());
  options.kv_tokens = flags.slots * prompts.longest;
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<engine::ModelEngine> engine,
                        engine::OpenEngine(flags.model, options));
  for (size_t i = 0; i < prompts.requests.size(); ++i) {
    const absl::Status queued = engine->Enqueue(std::move(prompts.requests[i]));
    if (!queued.ok()) {
      Problem problem = ProblemOf(queued);
      problem.file = flags.input;
      problem.field =
          absl::StrCat("id ", prompts.ids[i].dump(), ": ", problem.field);
      return BadInput(problem);
    }
  }
  std::map<uint64_t, engine::EngineResult> finished;
  size_t next = 0;  // to print: results keep the order of the input
  while (engine->has_work()) {
    auto results = engine->Step();
    if (!results.ok()) return WithFile(results.status(), flags.model);
    for (engine::EngineResult& r : *results) finished[r.id] = std::move(r);
    for (; finished.contains(next); ++next) {
      const engine::EngineResult r = std::move(finished.at(next));
      finished.erase(next);
      PrintLine(
          {{"id", prompts.ids[next]},
           {"token_ids", r.tokens},
           {"logprobs",
            std::vector<double>(r.logprobs.begin(), r.logprobs.end())},
           {"finish",
            r.finish == engine::FinishReason::kStop ? "stop" : "length"}});
    }
  }
  PrintBackEnd(engine->back_end());
  return 0;
}

struct ExportFlags {
  std::string model, checkpoint, out, dtype;
};

absl::StatusOr<int> RunExport(const ExportFlags& flags) {
  if (flags.model.empty() == flags.checkpoint.empty())
    return BadInput({"export", "--model, --checkpoint", 0,
                     flags.model.empty() ? "neither" : "both", "one of them"});
  std::string from = flags.model;
  if (from.empty()) {
    // A training checkpoint holds its model in a folder of its own.
    from = flags.checkpoint;
    if (ReadFile(from + "/model/config.json").ok()) from += "/model";
  }
  ATOD_RETURN_IF_ERROR(model::ConvertModel(
      from, flags.out, flags.dtype.empty() ? "" : DtypeOf(flags.dtype)));
  std::printf("exported %s to %s\n", from.c_str(), flags.out.c_str());
  return 0;
}

struct InitFlags {
  std::string config, tokenizer, init = "unit", out;
  uint64_t seed = 0;
};

// What the config leaves open comes from the tokenizer.
absl::StatusOr<model::ModelConfig> ConfigFor(const std::string& path,
                                             const Tokenizer& tokenizer) {
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  ATOD_ASSIGN_OR_RETURN(json config, ParseJson(text, path));
  if (config.is_object()) {
    if (!config.contains("vocab_size"))
      config["vocab_size"] = tokenizer.vocab_size();
    if (!config.contains("eos_token_id") && tokenizer.eos_id().has_value())
      config["eos_token_id"] = *tokenizer.eos_id();
    if (!config.contains("model_type")) config["model_type"] = "qwen3";
  }
  ATOD_ASSIGN_OR_RETURN(model::ModelConfig c,
                        model::ParseModelConfig(config.dump(), path));
  if (c.vocab_size < tokenizer.vocab_size())
    return BadInput(
        {path, "vocab_size", 0, absl::StrCat(c.vocab_size),
         absl::StrCat("at least the tokenizer's ", tokenizer.vocab_size())});
  // All that the file says, and what else transformers wants to know.
  c.source.clear();
  auto full =
      nlohmann::ordered_json::parse(model::ModelConfigJson(c, "float32"));
  for (const auto& [key, value] : config.items()) full[key] = value;
  c.source = full.dump(2) + "\n";
  return c;
}

absl::StatusOr<int> RunInit(const InitFlags& flags) {
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                        Tokenizer::Load(flags.tokenizer));
  ATOD_ASSIGN_OR_RETURN(const model::ModelConfig config,
                        ConfigFor(flags.config, *tokenizer));
  ATOD_RETURN_IF_ERROR(model::CreateModel(config, flags.init, flags.seed,
                                          flags.out, flags.tokenizer));
  int64_t parameters = 0;
  for (const model::ParameterSpec& spec : model::ParameterSpecs(config)) {
    int64_t size = 1;
    for (const int64_t n : spec.shape) size *= n;
    parameters += size;
  }
  std::printf("initialised %s: %lld parameters, vocabulary %lld\n",
              flags.out.c_str(), static_cast<long long>(parameters),
              static_cast<long long>(config.vocab_size));
  return 0;
}

absl::StatusOr<int> RunSft(learner::SftOptions options,
                           const BackEndFlags& back_end) {
  const model::OpenOptions open = OpenOptionsOf(back_end);
  options.dtype = open.dtype;
  options.device = open.device;
  options.deterministic = open.deterministic;
  options.threads = back_end.threads;
  const auto report = [&](const learner::SftProgress& p) {
    std::printf(
        "update %lld/%lld loss %.4f lr %.2e grad %.3f %.1f updates/s %.0f "
        "tokens/s\n",
        static_cast<long long>(p.update),
        static_cast<long long>(options.updates), p.loss, p.lr, p.grad_norm,
        p.updates_per_second, p.tokens_per_second);
    std::fflush(stdout);
  };
  ATOD_RETURN_IF_ERROR(
      learner::TrainSft(options, report, PrintBackEnd).status());
  std::printf("wrote %s\n", options.out_dir.c_str());
  return 0;
}

}  // namespace

void AddModelCommands(Command app) {
  auto score = std::make_shared<ScoreFlags>();
  Command command =
      app.Add("score", "Log-probs of given tokens, by the teacher's code",
              [score] { return RunScore(*score); });
  command.Arg("--model", score->model, "model folder").Required();
  command
      .Arg("--input", score->input,
           "lines {\"token_ids\", \"spans\": [[begin, length]]}")
      .Required();
  command.Arg("--temperature", score->temperature, "divides the logits (1)");
  AddBackEndFlags(command, score->back_end);
  auto generate = std::make_shared<GenerateFlags>();
  command = app.Add("generate", "Continue token ids, by the rollout engine",
                    [generate] { return RunGenerate(*generate); });
  command.Arg("--model", generate->model, "model folder").Required();
  command.Arg("--input", generate->input, "lines {\"id\", \"token_ids\"}")
      .Required();
  command.Arg("--seed", generate->seed, "of the sampling noise (0)")
      .WholeNumber();
  command.Arg("--temperature", generate->sampling.temperature,
              "divides the logits; 0 is greedy (1)");
  command.Arg("--top-p", generate->sampling.top_p, "nucleus mass (1: all)");
  command.Arg("--top-k", generate->sampling.top_k, "candidates (0: all)");
  command.Arg("--max-tokens", generate->sampling.max_tokens,
              "longest continuation (512)");
  command.Arg("--slots", generate->slots, "requests that run at once (64)")
      .Range(1, 4096);
  AddBackEndFlags(command, generate->back_end);

  auto exported = std::make_shared<ExportFlags>();
  command = app.Add("export", "Write a model as a Hugging Face folder",
                    [exported] { return RunExport(*exported); });
  command.Arg("--model", exported->model, "model folder");
  command.Arg("--checkpoint", exported->checkpoint, "training checkpoint");
  command.Arg("--out", exported->out, "folder to write").Required();
  command.Arg("--dtype", exported->dtype, "fp32 or bf16 (unchanged)")
      .OneOf({"fp32", "bf16"});

  auto init = std::make_shared<InitFlags>();
  command = app.Add("init-model", "Make a model with random weights",
                    [init] { return RunInit(*init); });
  command
      .Arg("--config", init->config,
           "config.json; vocab_size and eos_token_id may be left out")
      .Required();
  command.Arg("--tokenizer", init->tokenizer, "tokenizer folder").Required();
  command.Arg("--init", init->init, "unit or hf (unit)").OneOf({"unit", "hf"});
  command.Arg("--seed", init->seed, "of the weights (0)").WholeNumber();
  command.Arg("--out", init->out, "folder to write").Required();

  auto sft = std::make_shared<learner::SftOptions>();
  auto back_end = std::make_shared<BackEndFlags>();
  back_end->threads = 1;
  command = app.Add("sft", "Fine-tune a model on demonstrations",
                    [=] { return RunSft(*sft, *back_end); });
  command.Arg("--model", sft->model_dir, "initial model folder").Required();
  command.Arg("--data", sft->data_path, "lines {\"prompt\", \"response\"}")
      .Required();
  command.Arg("--out", sft->out_dir, "folder to write").Required();
  command.Arg("--updates", sft->updates, "optimiser updates (800)");
  command.Arg("--batch-rows", sft->batch_rows, "rows an update (32)");
  command.Arg("--lr", sft->lr, "peak learning rate (3e-3)").Number(0, 10);
  command.Arg("--warmup", sft->warmup, "updates of warm-up (30)")
      .WholeNumber(0, 1'000'000);
  command.Arg("--schedule", sft->schedule, "cosine or constant");
  command.Arg("--weight-decay", sft->weight_decay, "of matrices (0.01)")
      .Number(0, 10);
  command
      .Arg("--grad-clip", sft->grad_clip, "largest gradient norm, 0: none (1)")
      .Number(0, 1e9);
  command.Arg("--beta2", sft->beta2, "AdamW's second beta (0.95)").Number(0, 1);
  command.Arg("--seed", sft->seed, "of the order of rows (0)").WholeNumber();
  AddBackEndFlags(command, *back_end);
}

}  // namespace atod::cli
