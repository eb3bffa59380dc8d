#include "services/learner/algorithm/advantages.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "services/learner/algorithm/groups.h"

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

// Finite log-probs may still be too far apart for a KL, a sum or a product.
absl::Status CheckAdvantages(const StepBatch& batch,
                             const std::vector<double>& advantage) {
  for (int i = 0; i < batch.num_trajectories(); ++i) {
    for (int k = batch.turn_begin[i]; k < batch.turn_begin[i + 1]; ++k) {
      for (int t = batch.token_begin[k]; t < batch.token_begin[k + 1]; ++t) {
        if (std::isfinite(advantage[t])) continue;
        return Wrong(
            absl::StrCat("advantage of trajectory ", batch.trajectory_id[i],
                         ", turn ", batch.turn_index[k]),
            absl::StrCat(advantage[t]),
            "a finite number; log-probs of its group are too far "
            "apart");
      }
    }
  }
  return absl::OkStatus();
}

// The columns that the recipe needs.
absl::Status CheckPresent(const StepBatch& batch, const Recipe& recipe) {
  const auto present = [&](bool needed, const char* name,
                           const std::vector<double>& column) {
    if (!needed || !column.empty() || batch.num_tokens() == 0)
      return absl::OkStatus();
    return Wrong(name, "none",
                 absl::StrCat("one a token for recipe ", recipe.name));
  };
  ATOD_RETURN_IF_ERROR(
      present(recipe.needs_teacher, "teacher_logprob", batch.teacher_logprob));
  return present(recipe.reward.kl_coef > 0 || recipe.signal.scale != 1,
                 "reference_logprob", batch.reference_logprob);
}

StatisticsInput StatisticsOf(const StepBatch& batch, const GroupIndex& items,
                             const Recipe& recipe,
                             const std::vector<double>& reward) {
  StatisticsInput in;
  in.group_begin = items.begin;
  in.group_member = items.member;
  in.reward = reward;
  in.group = recipe.reward.group;
  in.turn_begin = batch.turn_begin;
  in.token_begin = batch.token_begin;
  in.old_logprob = batch.old_logprob;
  in.teacher_logprob = batch.teacher_logprob;
  in.tdur = recipe.tdur;
  return in;
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

void SummarizeGroups(const GroupIndex& items, const StatisticsOutput& out,
                     std::map<std::string, double>& metrics) {
  Mean flat;
  double singletons = 0;
  for (int g = 0; g < items.num_groups(); ++g) {
    flat.Add(out.flat[g]);
    singletons += items.members(g).size() == 1;
  }
  flat.Put("hybrid/flat_group_ratio", metrics);
  metrics["hybrid/singleton_groups"] = singletons;
}

void SummarizeTurns(const StepBatch& batch, const StatisticsOutput& out,
                    const std::vector<double>& w,
                    std::map<std::string, double>& metrics) {
  const bool has_teacher = !batch.teacher_logprob.empty();
  Mean active, weight, disagreement, uncertainty;
  for (int i = 0; i < batch.num_trajectories(); ++i) {
    bool any = false;
    for (int k = batch.turn_begin[i]; k < batch.turn_begin[i + 1]; ++k) {
      if (batch.token_begin[k] == batch.token_begin[k + 1]) continue;
      any = true;
      weight.Add(w[k]);
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

void SummarizeSignals(const StepBatch& batch, const CombineInput& in,
                      std::map<std::string, double>& metrics) {
  Mean distillation, reward, gap;
  for (int k = 0; k < batch.num_turns(); ++k) {
    for (int t = batch.token_begin[k]; t < batch.token_begin[k + 1]; ++t) {
      const auto terms = kernels::HybridAdvantage(
          in.kl_coef, in.weight[in.token_weights ? t : k],
          in.signal.empty() ? 0.0 : in.signal[t], in.rl_coef,
          in.group_advantage[k]);
      distillation.Add(std::abs(terms.distillation));
      reward.Add(std::abs(terms.reward));
      if (!batch.teacher_logprob.empty())
        gap.Add(std::abs(batch.teacher_logprob[t] - batch.old_logprob[t]));
    }
  }
  distillation.Put("hybrid/opd_signal_abs_mean", metrics);
  reward.Put("hybrid/rl_signal_abs_mean", metrics);
  gap.Put("hybrid/teacher_gap_abs_mean", metrics);
  if (reward.sum > 0)
    metrics["hybrid/opd_rl_ratio"] = distillation.sum / reward.sum;
}

// Items of the statistics as one number a trajectory: the mean over its turns
// when those are the items.
std::vector<double> PerTrajectory(const StepBatch& batch, Unit statistics,
                                  const std::vector<double>& items) {
  if (statistics == Unit::kTrajectory) return items;
  std::vector<double> out(batch.num_trajectories());
  for (int i = 0; i < batch.num_trajectories(); ++i) {
    Mean mean;
    for (int k = batch.turn_begin[i]; k < batch.turn_begin[i + 1]; ++k)
      mean.Add(items[k]);
    out[i] = mean.count > 0 ? mean.sum / mean.count : 0;
  }
  return out;
}

// Token weights as one number a turn.
std::vector<double> TurnMeans(const StepBatch& batch,
                              const std::vector<double>& token_w) {
  std::vector<double> w(batch.num_turns());
  for (int k = 0; k < batch.num_turns(); ++k) {
    Mean mean;
    for (int t = batch.token_begin[k]; t < batch.token_begin[k + 1]; ++t)
      mean.Add(token_w[t]);
    w[k] = mean.count > 0 ? mean.sum / mean.count : 0;
  }
  return w;
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
  for (size_t i = 0; i < batch.reward.size(); ++i)
    if (!IsReward(batch.reward[i]))
      return Wrong(absl::StrCat("reward[", i, "]"),
                   absl::StrCat(batch.reward[i]), kRewardText);
  ATOD_RETURN_IF_ERROR(CheckFinite("old_logprob", batch.old_logprob));
  for (const auto& [name, column] :
       {std::pair("teacher_logprob", &batch.teacher_logprob),
        std::pair("reference_logprob", &batch.reference_logprob),
        std::pair("context_logprob", &batch.context_logprob)}) {
    if (!column->empty())
      ATOD_RETURN_IF_ERROR(CheckLength(name, column->size(), tokens));
    ATOD_RETURN_IF_ERROR(CheckFinite(name, *column));
  }
  return absl::OkStatus();
}

absl::StatusOr<Advantages> ComputeAdvantages(const StepBatch& batch,
                                             const Recipe& recipe,
                                             const Coefficients& coefficients,
                                             DeviceBackend& device) {
  if (coefficients.s < 0)
    return Wrong("step", absl::StrCat(coefficients.s), "at least 0");
  ATOD_RETURN_IF_ERROR(ValidateBatch(batch));
  ATOD_RETURN_IF_ERROR(CheckPresent(batch, recipe));

  const GroupIndex groups = IndexGroups(batch.group);
  const GroupIndex items =
      StatisticsItems(batch, groups, recipe.reward.statistics);
  Advantages result;
  result.kl_coef = coefficients.kl;
  result.rl_coef = coefficients.rl;
  const std::vector<double> reward =
      ShapedRewards(batch, groups, recipe.reward);
  // A KL may overflow in all of a group, which would then look flat.
  ATOD_RETURN_IF_ERROR(CheckFinite("reward less penalties and KL", reward));
  result.shaped_reward = PerTrajectory(batch, recipe.reward.statistics, reward);
  StatisticsOutput out;
  ATOD_RETURN_IF_ERROR(
      device.Statistics(StatisticsOf(batch, items, recipe, reward), &out));
  result.group_advantage = TurnAdvantages(batch, out.grpo, recipe.reward);
  result.grpo = PerTrajectory(batch, recipe.reward.statistics, out.grpo);

  const bool per_token = recipe.weight.per_token;
  std::vector<double> weight =
      recipe.weight.weigh({batch, recipe.weights, out, result.group_advantage});
  ModifyWeights(batch, recipe.modifiers, per_token, coefficients.s, weight);
  int64_t clamped = 0;
  const std::vector<double> signal =
      DistillationSignal(batch, recipe.signal, &clamped);

  CombineInput terms;
  terms.token_begin = batch.token_begin;
  terms.kl_coef = result.kl_coef;
  terms.weight = weight;
  terms.token_weights = per_token;
  terms.signal = signal;
  terms.rl_coef = result.rl_coef;
  terms.group_advantage = result.group_advantage;
  ATOD_RETURN_IF_ERROR(device.Combine(terms, &result.advantage));
  ATOD_RETURN_IF_ERROR(CheckAdvantages(batch, result.advantage));

  result.metrics["hybrid/kl_coef"] = result.kl_coef;
  result.metrics["hybrid/rl_coef"] = result.rl_coef;
  if (recipe.signal.clamp > 0)
    result.metrics["hybrid/clamped_tokens"] = static_cast<double>(clamped);
  SummarizeGroups(items, out, result.metrics);
  SummarizeSignals(batch, terms, result.metrics);
  if (per_token) {
    result.w = TurnMeans(batch, weight);
    result.token_w = std::move(weight);
  } else {
    result.w = std::move(weight);
  }
  SummarizeTurns(batch, out, result.w, result.metrics);

  result.d = std::move(out.d);
  result.h = std::move(out.h);
  result.d_norm = std::move(out.d_norm);
  result.h_norm = std::move(out.h_norm);
  return result;
}

double AdvantageAt(const StepBatch& batch, const Advantages& a,
                   const SignalOptions& signal, int32_t k, int32_t t,
                   double current) {
  if (!signal.current || batch.teacher_logprob.empty()) return a.advantage[t];
  const auto terms = kernels::HybridAdvantage(
      a.kl_coef, a.token_w.empty() ? a.w[k] : a.token_w[t],
      TeacherGapAt(batch, t, current, signal), a.rl_coef, a.group_advantage[k]);
  return terms.distillation + terms.reward;
}

}  // namespace atod::learner
