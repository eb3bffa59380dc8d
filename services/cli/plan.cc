#include "services/cli/plan.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/learner/recipe_of.h"
#include "services/teacher/scorer.h"

namespace atod::cli {
namespace {

// Rows of float32 logits that exist at once (common/model/head_logprobs.h).
constexpr uint64_t kHeadRows = 1024;

uint64_t Parameters(const model::ModelConfig& model) {
  uint64_t count = 0;
  for (const model::ParameterSpec& spec : model::ParameterSpecs(model)) {
    uint64_t n = 1;
    for (const int64_t d : spec.shape) n *= static_cast<uint64_t>(d);
    count += n;
  }
  return count;
}

uint64_t BytesOf(const std::string& dtype) {
  return dtype == "bfloat16" ? 2 : 4;
}

// Widths of one layer: hidden, queries, keys (and values), feed-forward.
struct Widths {
  explicit Widths(const model::ModelConfig& m)
      : h(m.hidden_size),
        q(m.num_attention_heads * m.head_dim),
        k(m.num_key_value_heads * m.head_dim),
        f(m.intermediate_size) {}
  uint64_t h, q, k, f;
};

uint64_t HeadBytes(const model::ModelConfig& m) {
  return kHeadRows * static_cast<uint64_t>(m.vocab_size) * 4;
}

std::string Gib(uint64_t bytes) {
  const double gib = static_cast<double>(bytes) / (1 << 30);
  return gib >= 0.1 ? absl::StrFormat("%.1f GiB", gib)
                    : absl::StrFormat("%.1f MiB", gib * 1024);
}

template <typename Describe>
std::string MemoryLine(const std::string& role, const std::string& path,
                       Describe describe) {
  const absl::StatusOr<model::ModelConfig> model =
      path.empty() ? absl::NotFoundError("no model is named")
                   : model::ReadModelConfig(path);
  if (!model.ok())
    return absl::StrCat("  ", role, ": unknown (", model.status().message(),
                        ")\n");
  return absl::StrCat("  ", role, ": ", describe(*model), "\n");
}

std::string MemoryLines(const v1::RunConfig& c) {
  const std::string& dtype = c.model().dtype();
  const auto recipe = learner::RecipeOf(c.algorithm());
  const bool reference = recipe.ok() && recipe->needs_reference;
  const bool teachers = !recipe.ok() || recipe->needs_teacher;
  std::string out = absl::StrCat("memory a process, ", dtype,
                                 " (estimate, docs/operations.md):\n");
  absl::StrAppend(
      &out, MemoryLine("learner", c.model().path(), [&](const auto& model) {
        const LearnerMemory m =
            LearnerBytes(model, dtype, c.optimizer().micro_batch_tokens());
        return absl::StrFormat(
            "%s = %s parameters + %s gradients + %s optimiser + %s activations "
            "of %d tokens + %s logits%s",
            Gib(m.total() + (reference ? m.parameters : 0)), Gib(m.parameters),
            Gib(m.gradients), Gib(m.optimizer), Gib(m.activations),
            c.optimizer().micro_batch_tokens(), Gib(m.head),
            reference
                ? absl::StrCat(" + ", Gib(m.parameters), " reference model")
                : "");
      }));
  absl::StrAppend(
      &out, MemoryLine("rollout", c.model().path(), [&](const auto& model) {
        const InferenceMemory m = RolloutBytes(
            model, dtype, c.rollout().slots(), c.model().max_context());
        return absl::StrFormat(
            "%s = %s parameters + %s keys and values of %d slots x %d tokens + "
            "%s for the next version",
            Gib(m.total()), Gib(m.parameters), Gib(m.cache_or_work),
            c.rollout().slots(), c.model().max_context(), Gib(m.incoming));
      }));
  for (const v1::TeacherConfig& teacher : c.teachers()) {
    if (!teachers) {
      absl::StrAppend(&out, "  teacher ", teacher.name(),
                      ": not asked by this recipe\n");
      continue;
    }
    const int64_t tokens = teacher::ScorerOptions().max_forward_tokens;
    absl::StrAppend(
        &out, MemoryLine(absl::StrCat("teacher ", teacher.name()),
                         teacher.path(), [&](const auto& model) {
                           const InferenceMemory m =
                               TeacherBytes(model, dtype, tokens);
                           return absl::StrFormat(
                               "%s = %s parameters + %s for a forward of %d "
                               "tokens",
                               Gib(m.total()), Gib(m.parameters),
                               Gib(m.cache_or_work), tokens);
                         }));
  }
  return out;
}

}  // namespace

LearnerMemory LearnerBytes(const model::ModelConfig& model,
                           const std::string& dtype,
                           uint32_t micro_batch_tokens) {
  const uint64_t b = BytesOf(dtype), p = Parameters(model);
  const Widths w(model);
  // A token of a layer: two norms of the hidden state and two of queries and
  // keys (float32 input, output in b), what attention keeps (queries, shared
  // keys and values, result), and four feed-forward rows.
  const uint64_t token =
      2 * (4 + 2 * b) * w.h + (4 + b) * (w.q + w.k) + 4 * b * w.q + 4 * b * w.f;
  return {.parameters = p * b,
          .gradients = p * b,
          .optimizer = p * (b == 4 ? 8 : 12),
          .activations = token *
                         static_cast<uint64_t>(model.num_hidden_layers) *
                         micro_batch_tokens,
          .head = 2 * HeadBytes(model)};
}

InferenceMemory RolloutBytes(const model::ModelConfig& model,
                             const std::string& dtype, uint32_t slots,
                             uint32_t max_context) {
  const uint64_t b = BytesOf(dtype), p = Parameters(model);
  return {.parameters = p * b,
          .cache_or_work = uint64_t{slots} * max_context * 2 * b *
                           static_cast<uint64_t>(model.num_hidden_layers) *
                           Widths(model).k,
          .incoming = p * b};
}

InferenceMemory TeacherBytes(const model::ModelConfig& model,
                             const std::string& dtype, int64_t forward_tokens) {
  const uint64_t b = BytesOf(dtype), p = Parameters(model);
  const Widths w(model);
  // One layer's rows live at once: the residual and its norm in float32, then
  // queries, shared keys and values, and three feed-forward rows.
  const uint64_t token = 8 * w.h + b * (4 * w.q + 2 * w.k + 3 * w.f);
  return {.parameters = p * b,
          .cache_or_work =
              token * static_cast<uint64_t>(forward_tokens) + HeadBytes(model)};
}

std::string Plan(const v1::RunConfig& c) {
  const uint64_t episodes =
      uint64_t{c.algorithm().tasks_per_step()} * c.algorithm().group_size();
  const uint32_t evals =
      c.eval().every() == 0
          ? 0
          : 1 + (c.steps() + c.eval().every() - 1) / c.eval().every();
  const uint64_t turns = episodes * c.env().max_turns();
  const bool fixed = c.optimizer().turns_per_update() == 0;
  const uint64_t updates =
      fixed ? c.optimizer().updates_per_step()
            : (turns - 1) / c.optimizer().turns_per_update() + 1;
  return absl::StrCat(
      absl::StrFormat(
          "recipe %s, profile %s: %d steps of %d tasks x %d rollouts = %d "
          "episodes a step (%d in all)\n"
          "updates: %s (%d in all), %.4g episodes each\n"
          "longest episode: %d turns x %d response tokens; evaluation: %d "
          "times %d games of %s\n"
          "tokens a step, at most: %d sampled, %d read by the learner (a turn "
          "is a prompt and a response, %d tokens together)\n",
          c.algorithm().recipe(), c.algorithm().profile(), c.steps(),
          c.algorithm().tasks_per_step(), c.algorithm().group_size(), episodes,
          episodes * c.steps(),
          fixed ? absl::StrFormat("%d a step", updates)
                : absl::StrFormat("one for %d turns, at most %d a step",
                                  c.optimizer().turns_per_update(), updates),
          updates * c.steps(), static_cast<double>(episodes) / updates,
          c.env().max_turns(), c.sampling().train().max_tokens(), evals,
          c.eval().panel_size(), c.eval().split(),
          turns * c.sampling().train().max_tokens(),
          turns * c.model().max_context(), c.model().max_context()),
      MemoryLines(c));
}

}  // namespace atod::cli
