#include "services/learner/algorithm/advantages.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "services/learner/algorithm/groups.h"
#include "services/learner/algorithm/reward_transform.h"

namespace atod::learner {
namespace {

absl::Status Wrong(const std::string& field, const std::string& found,
                   const std::string& expected) {
  return BadInput({.file = "step batch",
                   .field = field,
                   .line = 0,
                   .found = found,
                   .expected = expected});
}

absl::Status CheckLength(const std::string& column, size_t found,
                         size_t expected) {
  if (found == expected) return absl::OkStatus();
  return Wrong(column, absl::StrCat(found, " rows"),
               absl::StrCat(expected, " rows"));
}

absl::Status CheckOffsets(const std::string& column,
                          const std::vector<int32_t>& offsets, size_t things,
                          size_t rows) {
  ATOD_RETURN_IF_ERROR(CheckLength(column, offsets.size(), things + 1));
  if (offsets.front() != 0)
    return Wrong(column + "[0]", absl::StrCat(offsets.front()), "0");
  for (size_t i = 1; i < offsets.size(); ++i) {
    if (offsets[i] < offsets[i - 1])
      return Wrong(absl::StrCat(column, "[", i, "]"), absl::StrCat(offsets[i]),
                   absl::StrCat("at least ", offsets[i - 1]));
  }
  return CheckLength(column + " (last)", offsets.back(), rows);
}

absl::Status CheckFinite(const std::string& column,
                         const std::vector<double>& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i]))
      return Wrong(absl::StrCat(column, "[", i, "]"), absl::StrCat(values[i]),
                   "a finite number");
  }
  return absl::OkStatus();
}

// Sums over what a mean is taken of; the tag stays absent for an empty mean.
struct Mean {
  double sum = 0;
  double count = 0;
  void Add(double x) {
    sum += x;
    ++count;
  }
  void Put(const std::string& tag,
           std::map<std::string, double>& metrics) const {
    if (count > 0) metrics[tag] = sum / count;
  }
};

void SummarizeTurns(const StepBatch& batch, const AdvantageOutput& out,
                    bool has_teacher, std::map<std::string, double>& metrics) {
  Mean active, weight, disagreement, uncertainty;
  for (int i = 0; i < batch.num_trajectories(); ++i) {
    bool any = false;
    for (int k = batch.turn_begin[i]; k < batch.turn_begin[i + 1]; ++k) {
      if (batch.token_begin[k] == batch.token_begin[k + 1]) continue;
      any = true;
      weight.Add(out.w[k]);
      if (has_teacher) disagreement.Add(out.d[k]);
      uncertainty.Add(out.h[k]);
    }
    if (any) active.Add(out.active[i]);
  }
  if (has_teacher) {
    active.Put("tdur/active_ratio", metrics);
    weight.Put("tdur/weight_mean", metrics);
  }
  disagreement.Put("tdur/disagreement", metrics);
  uncertainty.Put("tdur/uncertainty", metrics);
}

void SummarizeSignals(const StepBatch& batch, const AdvantageInput& in,
                      const AdvantageOutput& out,
                      std::map<std::string, double>& metrics) {
  Mean distillation, reward, gap;
  for (int i = 0; i < batch.num_trajectories(); ++i) {
    for (int k = batch.turn_begin[i]; k < batch.turn_begin[i + 1]; ++k) {
      for (int t = batch.token_begin[k]; t < batch.token_begin[k + 1]; ++t) {
        const double* teacher =
            in.teacher_logprob.empty() ? nullptr : &in.teacher_logprob[t];
        const auto terms =
            kernels::HybridAdvantage(in.kl_coef, out.w[k], in.old_logprob[t],
                                     teacher, in.rl_coef, out.grpo[i]);
        distillation.Add(std::abs(terms.distillation));
        reward.Add(std::abs(terms.reward));
        if (teacher != nullptr) gap.Add(std::abs(*teacher - in.old_logprob[t]));
      }
    }
  }
  distillation.Put("hybrid/opd_signal_abs_mean", metrics);
  reward.Put("hybrid/rl_signal_abs_mean", metrics);
  gap.Put("hybrid/teacher_gap_abs_mean", metrics);
  if (reward.sum > 0)
    metrics["hybrid/opd_rl_ratio"] = distillation.sum / reward.sum;
}

}  // namespace

absl::Status ValidateBatch(const StepBatch& batch) {
  const size_t trajectories = batch.group.size();
  const size_t turns = batch.turn_index.size();
  const size_t tokens = batch.old_logprob.size();
  ATOD_RETURN_IF_ERROR(
      CheckLength("trajectory_id", batch.trajectory_id.size(), trajectories));
  ATOD_RETURN_IF_ERROR(
      CheckLength("reward", batch.reward.size(), trajectories));
  ATOD_RETURN_IF_ERROR(
      CheckOffsets("turn_begin", batch.turn_begin, trajectories, turns));
  ATOD_RETURN_IF_ERROR(
      CheckLength("valid_action", batch.valid_action.size(), turns));
  ATOD_RETURN_IF_ERROR(
      CheckOffsets("token_begin", batch.token_begin, turns, tokens));
  if (!batch.teacher_logprob.empty()) {
    ATOD_RETURN_IF_ERROR(
        CheckLength("teacher_logprob", batch.teacher_logprob.size(), tokens));
  }
  ATOD_RETURN_IF_ERROR(CheckFinite("reward", batch.reward));
  ATOD_RETURN_IF_ERROR(CheckFinite("old_logprob", batch.old_logprob));
  return CheckFinite("teacher_logprob", batch.teacher_logprob);
}

absl::StatusOr<Advantages> ComputeAdvantages(const StepBatch& batch,
                                             const AlgorithmOptions& options,
                                             int step, DeviceBackend& device) {
  ATOD_ASSIGN_OR_RETURN(const Recipe recipe, MakeRecipe(options));
  if (step < 0) return Wrong("step", absl::StrCat(step), "at least 0");
  ATOD_RETURN_IF_ERROR(ValidateBatch(batch));
  const bool has_teacher = !batch.teacher_logprob.empty();
  if (recipe.needs_teacher && !has_teacher && batch.num_tokens() > 0)
    return Wrong("teacher_logprob", "none",
                 absl::StrCat("one a token for recipe ", options.recipe));

  const GroupIndex groups = IndexGroups(batch.group);
  Advantages result;
  result.kl_coef = recipe.kl.At(step);
  result.rl_coef = recipe.rl.At(step);
  result.shaped_reward = PenalizedRewards(
      batch, groups, options.invalid_action_penalty, recipe.penalty_scope);

  AdvantageInput in;
  in.group_begin = groups.begin;
  in.group_member = groups.member;
  in.reward = result.shaped_reward;
  in.turn_begin = batch.turn_begin;
  in.token_begin = batch.token_begin;
  in.old_logprob = batch.old_logprob;
  in.teacher_logprob = batch.teacher_logprob;
  in.tdur = recipe.tdur;
  in.kl_coef = result.kl_coef;
  in.rl_coef = result.rl_coef;
  AdvantageOutput out;
  ATOD_RETURN_IF_ERROR(device.ComputeAdvantages(in, &out));

  auto& metrics = result.metrics;
  metrics["hybrid/kl_coef"] = result.kl_coef;
  metrics["hybrid/rl_coef"] = result.rl_coef;
  Mean flat;
  double singletons = 0;
  for (int g = 0; g < groups.num_groups(); ++g) {
    flat.Add(out.flat[g]);
    singletons += groups.members(g).size() == 1;
  }
  flat.Put("hybrid/flat_group_ratio", metrics);
  metrics["hybrid/singleton_groups"] = singletons;
  SummarizeTurns(batch, out, has_teacher, metrics);
  SummarizeSignals(batch, in, out, metrics);

  result.grpo = std::move(out.grpo);
  result.d = std::move(out.d);
  result.h = std::move(out.h);
  result.d_norm = std::move(out.d_norm);
  result.h_norm = std::move(out.h_norm);
  result.w = std::move(out.w);
  result.advantage = std::move(out.advantage);
  return result;
}

}  // namespace atod::learner
