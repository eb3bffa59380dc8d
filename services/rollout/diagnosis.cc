#include "services/rollout/diagnosis.h"

#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/device/device.h"
#include "services/learner/algorithm/advantages.h"
#include "services/learner/recipe_of.h"

namespace atod::rollout {
namespace {

struct Moments {
  double sum = 0, squares = 0;
  void Add(double x) {
    sum += x;
    squares += x * x;
  }
  double Mean(double n) const { return sum / n; }
  double Stderr(double n) const {
    if (n < 2) return 0;
    const double variance = (squares - sum * sum / n) / (n - 1);
    return std::sqrt(std::max(0.0, variance) / n);
  }
};

// Log-probs of all sampled tokens, in the order of episodes and sequences.
absl::StatusOr<std::vector<double>> ScoreAll(
    const std::vector<v1::Trajectory>& episodes, teacher::Scorer& scorer) {
  std::vector<double> out;
  for (const v1::Trajectory& episode : episodes) {
    std::vector<teacher::ScoreRequest> requests;
    for (const v1::Sequence& s : episode.sequences()) {
      teacher::ScoreRequest request{{s.tokens().begin(), s.tokens().end()}, {}};
      for (const v1::Span& span : s.spans())
        if (span.length() > 0)
          request.spans.push_back({span.begin(), span.length()});
      if (!request.spans.empty()) requests.push_back(std::move(request));
    }
    // Temperature 0 is greedy sampling; log-probs are those of 1 then.
    const float sampled_at = episode.sampling().temperature();
    const float temperature = sampled_at > 0 ? sampled_at : 1;
    ATOD_ASSIGN_OR_RETURN(const std::vector<teacher::ScoreResult> results,
                          scorer.Score(requests, {.temperature = temperature}));
    for (const teacher::ScoreResult& r : results)
      out.insert(out.end(), r.logprobs.begin(), r.logprobs.end());
  }
  return out;
}

}  // namespace

absl::StatusOr<std::vector<TurnDiagnosis>> Diagnose(
    const std::vector<v1::Trajectory>& episodes, teacher::Scorer& student,
    teacher::Scorer& teacher, const std::string& profile) {
  learner::StepBatch batch;
  for (const v1::Trajectory& episode : episodes) {
    batch.trajectory_id.push_back(absl::StrCat(batch.num_trajectories()));
    batch.group.push_back(batch.num_trajectories());
    batch.reward.push_back(episode.outcome().reward());
    for (const v1::Sequence& s : episode.sequences()) {
      for (const v1::Span& span : s.spans()) {
        if (span.length() == 0) continue;
        batch.turn_index.push_back(static_cast<int32_t>(span.turn()));
        batch.valid_action.push_back(1);
        batch.token_begin.push_back(batch.token_begin.back() +
                                    static_cast<int32_t>(span.length()));
      }
    }
    batch.turn_begin.push_back(batch.num_turns());
  }
  ATOD_ASSIGN_OR_RETURN(batch.old_logprob, ScoreAll(episodes, student));
  ATOD_ASSIGN_OR_RETURN(batch.teacher_logprob, ScoreAll(episodes, teacher));
  batch.rollout_logprob = batch.old_logprob;
  ATOD_ASSIGN_OR_RETURN(
      const config::LoadedConfig loaded,
      config::LoadRunConfig(
          {}, {"algorithm.recipe=atod", "algorithm.profile=" + profile}));
  ATOD_ASSIGN_OR_RETURN(const learner::Recipe recipe,
                        learner::RecipeOf(loaded.config.algorithm()));
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceBackend> device,
                        OpenDevice("cpu"));
  ATOD_ASSIGN_OR_RETURN(
      const learner::Advantages computed,
      learner::ComputeAdvantages(batch, recipe, recipe.At(1), *device));

  struct Sums {
    uint32_t samples = 0;
    Moments d, h, w;
  };
  std::map<int32_t, Sums> by_turn;
  for (int k = 0; k < batch.num_turns(); ++k) {
    Sums& sums = by_turn[batch.turn_index[k]];
    ++sums.samples;
    sums.d.Add(computed.d[k]);
    sums.h.Add(computed.h[k]);
    sums.w.Add(computed.w[k]);
  }
  std::vector<TurnDiagnosis> out;
  for (const auto& [turn, s] : by_turn) {
    const double n = s.samples;
    out.push_back({static_cast<uint32_t>(turn), s.samples, s.d.Mean(n),
                   s.d.Stderr(n), s.h.Mean(n), s.h.Stderr(n), s.w.Mean(n),
                   s.w.Stderr(n)});
  }
  return out;
}

}  // namespace atod::rollout
