#include "services/learner/algorithm/recipe.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "services/learner/algorithm/weights/registry.h"

namespace atod::learner {
namespace {

absl::Status Wrong(const std::string& key, const std::string& found,
                   const std::string& expected) {
  return BadInput({.file = "",
                   .field = absl::StrCat("algorithm.", key),
                   .line = 0,
                   .found = found,
                   .expected = expected});
}

// NaN fails too.
absl::Status AtLeast(const std::string& key, double value, double least,
                     const std::string& name) {
  if (value >= least && value < 1e300) return absl::OkStatus();
  return Wrong(key, absl::StrCat(value), absl::StrCat("at least ", name));
}

absl::Status AtMost(const std::string& key, double value, double most) {
  if (value <= most) return absl::OkStatus();
  return Wrong(key, absl::StrCat(value), absl::StrCat("at most ", most));
}

// The value of `choices` that `name` names.
template <typename T, size_t n>
absl::StatusOr<T> OneOf(const std::string& key, const std::string& name,
                        const std::pair<const char*, T> (&choices)[n]) {
  std::vector<std::string> names;
  for (const auto& [choice, value] : choices) {
    if (name == choice) return value;
    names.push_back(choice);
  }
  return Wrong(key, absl::StrCat("\"", name, "\""),
               absl::StrCat("one of: ", absl::StrJoin(names, ", ")));
}

// A number that the configuration has to say.
absl::StatusOr<double> Given(const std::string& key,
                             const std::optional<double>& value,
                             const std::string& whose) {
  if (!value.has_value())
    return Wrong(key, "nothing",
                 absl::StrCat("a number: ", whose, " has no published value"));
  ATOD_RETURN_IF_ERROR(AtLeast(key, *value, 0, "0"));
  return *value;
}

absl::Status CheckRanges(const AlgorithmOptions& o) {
  ATOD_RETURN_IF_ERROR(AtLeast("kl_coef_min", o.kl_coef_min, 0, "0"));
  ATOD_RETURN_IF_ERROR(AtLeast("kl_coef_init", o.kl_coef_init, o.kl_coef_min,
                               absl::StrCat("kl_coef_min ", o.kl_coef_min)));
  ATOD_RETURN_IF_ERROR(AtLeast("rl_coef_init", o.rl_coef_init, 0, "0"));
  ATOD_RETURN_IF_ERROR(AtLeast("rl_coef_max", o.rl_coef_max, o.rl_coef_init,
                               absl::StrCat("rl_coef_init ", o.rl_coef_init)));
  const std::pair<const char*, double> at_least_0[] = {
      {"invalid_action_penalty", o.invalid_action_penalty},
      {"tdur_min_turns", o.tdur_min_turns.value_or(0)},
      {"tdur_min_divergence", o.tdur_min_divergence.value_or(0)},
      {"clip_low", o.clip_low},
      {"clip_high", o.clip_high},
      {"importance_cap", o.importance_cap},
      {"entropy_coef", o.entropy_coef.value_or(0)},
      {"kl_loss_coef", o.kl_loss_coef},
      {"kl_reward_coef", o.kl_reward_coef},
      {"delta_scale", o.delta_scale},
      {"delta_clamp", o.delta_clamp},
      {"return_to_go", o.return_to_go},
      {"duplicate_rows_to", o.duplicate_rows_to},
      {"soft_curriculum_steps", o.soft_curriculum_steps},
      {"weight_floor", o.weight_floor},
      {"weight_parameter", o.weight_parameter},
      {"sod_delta", o.sod_delta},
      {"sdar_lambda", o.sdar_lambda},
      {"sdar_beta", o.sdar_beta},
      {"first_step", o.first_step}};
  for (const auto& [key, value] : at_least_0)
    ATOD_RETURN_IF_ERROR(AtLeast(key, value, 0, "0"));
  ATOD_RETURN_IF_ERROR(
      AtLeast("coef_anneal_steps", o.coef_anneal_steps.value_or(1), 1, "1"));
  ATOD_RETURN_IF_ERROR(AtLeast("aggregation_rows", o.aggregation_rows, 1, "1"));
  ATOD_RETURN_IF_ERROR(AtLeast("tcod_steps", o.tcod_steps, 1, "1"));
  ATOD_RETURN_IF_ERROR(
      AtLeast("weight_kept_fraction", o.weight_kept_fraction, 1e-9, "1e-9"));
  if (o.dual_clip.value_or(0) != 0)
    ATOD_RETURN_IF_ERROR(AtLeast("dual_clip", *o.dual_clip, 1, "1, or 0"));
  for (const auto& [key, value] :
       {std::pair("clip_low", o.clip_low),
        std::pair("weight_floor", o.weight_floor),
        std::pair("return_to_go", o.return_to_go),
        std::pair("weight_kept_fraction", o.weight_kept_fraction)})
    ATOD_RETURN_IF_ERROR(AtMost(key, value, 1));
  return absl::OkStatus();
}

// What the three profiles set when the configuration does not.
struct Profile {
  int anneal_steps;
  int min_turns;
  double min_divergence;
  const char* penalty_place;
  const char* penalty_order;
  const char* statistics_over;
  const char* singleton_group;
  const char* aggregation;
  double dual_clip;
  double entropy_coef;
};
constexpr std::pair<const char*, Profile> kProfiles[] = {
    {"paper",
     {80, 0, 0, "episode", "before", "trajectory", "zero", "trajectory", 0, 0}},
    {"default",
     {80, 3, 0.01, "episode", "where_varies", "trajectory", "zero",
      "trajectory", 0, 0}},
    {"released",
     {150, 3, 0.01, "turn", "before", "turn", "raw", "micro_batch", 3, 0.001}},
};

// What a recipe is made of.
struct Pieces {
  enum class Coefficient { kZero, kInit, kAnnealed, kGiven };
  Coefficient kl;
  Coefficient rl;
  const char* weights;
  bool sdar = false;
  bool tcod = false;
};
using enum Pieces::Coefficient;
constexpr std::pair<const char*, Pieces> kRecipes[] = {
    {"atod", {kAnnealed, kAnnealed, "tdur"}},
    {"opd", {kInit, kZero, "one"}},
    {"grpo", {kZero, kInit, "one"}},
    {"sod", {kInit, kInit, "sod"}},
    {"tcod", {.kl = kInit, .rl = kZero, .weights = "one", .tcod = true}},
    {"sdar", {.kl = kZero, .rl = kInit, .weights = "one", .sdar = true}},
    // ATOD without one of its parts.
    {"atod_token", {kAnnealed, kAnnealed, "token_batch"}},
    {"atod_token_fair", {kAnnealed, kAnnealed, "token_trajectory"}},
    {"atod_one", {kAnnealed, kAnnealed, "one"}},
    {"atod_one_matched", {kAnnealed, kAnnealed, "tdur_mean"}},
    {"atod_constant", {kGiven, kGiven, "tdur"}},
};

Schedule Constant(double value) {
  return {.init = value, .end = value, .anneal_steps = 1};
}

constexpr std::pair<const char*, Unit> kPlaces[] = {
    {"episode", Unit::kTrajectory}, {"turn", Unit::kTurn}};
constexpr std::pair<const char*, PenaltyOrder> kOrders[] = {
    {"before", PenaltyOrder::kBefore},
    {"where_varies", PenaltyOrder::kWhereVaries},
    {"after", PenaltyOrder::kAfter}};
constexpr std::pair<const char*, Unit> kUnits[] = {
    {"trajectory", Unit::kTrajectory}, {"turn", Unit::kTurn}};
constexpr std::pair<const char*, bool> kSingletons[] = {{"zero", false},
                                                        {"raw", true}};
constexpr std::pair<const char*, kernels::GroupStd> kStds[] = {
    {"bessel", kernels::GroupStd::kBessel},
    {"population", kernels::GroupStd::kPopulation},
    {"none", kernels::GroupStd::kNone}};
constexpr std::pair<const char*, Aggregation> kAggregations[] = {
    {"trajectory", Aggregation::kTrajectory},
    {"token", Aggregation::kToken},
    {"turn", Aggregation::kTurn},
    {"trajectory_turn", Aggregation::kTrajectoryTurn},
    {"micro_batch", Aggregation::kMicroBatch}};
constexpr std::pair<const char*, KlEstimator> kEstimators[] = {
    {"k1", KlEstimator::kK1},
    {"k2", KlEstimator::kK2},
    {"k3", KlEstimator::kK3}};
constexpr std::pair<const char*, kernels::TdurScore> kScores[] = {
    {"soft_or", kernels::TdurScore::kSoftOr},
    {"entropy", kernels::TdurScore::kEntropy},
    {"divergence", kernels::TdurScore::kDivergence}};
constexpr std::pair<const char*, bool> kDeltaStudents[] = {{"old", false},
                                                           {"current", true}};
constexpr std::pair<const char*, bool> kRatioLevels[] = {{"token", false},
                                                         {"turn", true}};
constexpr std::pair<const char*, RolloutPolicy::Mode> kTcodModes[] = {
    {"f2b", RolloutPolicy::Mode::kFrontToBack},
    {"b2f", RolloutPolicy::Mode::kBackToFront}};
constexpr std::pair<const char*, int> kSodModes[] = {
    {"stepwise", 0}, {"uniform", 1}, {"gated", 2}};

absl::Status FillReward(const AlgorithmOptions& o, const Profile& profile,
                        KlEstimator estimator, RewardOptions& out) {
  out.penalty = o.invalid_action_penalty;
  ATOD_ASSIGN_OR_RETURN(
      out.penalty_place,
      OneOf("penalty_place", o.penalty_place.value_or(profile.penalty_place),
            kPlaces));
  ATOD_ASSIGN_OR_RETURN(
      out.penalty_order,
      OneOf("penalty_order", o.penalty_order.value_or(profile.penalty_order),
            kOrders));
  ATOD_ASSIGN_OR_RETURN(
      out.statistics,
      OneOf("statistics_over",
            o.statistics_over.value_or(profile.statistics_over), kUnits));
  ATOD_ASSIGN_OR_RETURN(
      out.group.raw_single,
      OneOf("singleton_group",
            o.singleton_group.value_or(profile.singleton_group), kSingletons));
  ATOD_ASSIGN_OR_RETURN(out.group.std, OneOf("group_std", o.group_std, kStds));
  if (out.penalty_place == Unit::kTurn && out.statistics == Unit::kTrajectory &&
      out.penalty_order != PenaltyOrder::kAfter) {
    return Wrong("penalty_place", "\"turn\"",
                 "\"episode\", or statistics_over turn, or penalty_order "
                 "after: an episode has one reward");
  }
  out.kl_coef = o.kl_reward_coef;
  out.kl_estimator = estimator;
  return absl::OkStatus();
}

absl::Status FillWeights(const AlgorithmOptions& o, const Profile& profile,
                         const Pieces& pieces, Recipe& recipe) {
  ATOD_ASSIGN_OR_RETURN(recipe.weight,
                        FindWeightPiece(o.weights.value_or(pieces.weights)));
  recipe.tdur.enabled = recipe.weight.uses_tdur;
  recipe.tdur.min_turns = o.tdur_min_turns.value_or(profile.min_turns);
  recipe.tdur.min_divergence =
      o.tdur_min_divergence.value_or(profile.min_divergence);
  ATOD_ASSIGN_OR_RETURN(recipe.tdur.score,
                        OneOf("tdur_score", o.tdur_score, kScores));
  ATOD_ASSIGN_OR_RETURN(const int sod_mode,
                        OneOf("sod_mode", o.sod_mode, kSodModes));
  if (recipe.weight.name == "sod" && sod_mode == 2) {
    const std::string whose = "SOD's gated mode";
    ATOD_RETURN_IF_ERROR(Given("sod_gate_min", o.sod_gate_min, whose).status());
    ATOD_RETURN_IF_ERROR(Given("sod_gate_max", o.sod_gate_max, whose).status());
    ATOD_RETURN_IF_ERROR(
        Given("sod_gate_slope", o.sod_gate_slope, whose).status());
  }
  recipe.modifiers.kept_fraction = o.weight_kept_fraction;
  recipe.modifiers.floor = o.weight_floor;
  recipe.modifiers.mean_preserving = o.weight_mean_preserving;
  recipe.modifiers.curriculum_steps = o.soft_curriculum_steps;
  if (o.soft_curriculum_steps > 0) {
    ATOD_ASSIGN_OR_RETURN(
        recipe.modifiers.curriculum_softness,
        Given("soft_curriculum_softness", o.soft_curriculum_softness,
              "the soft curriculum"));
    if (recipe.modifiers.curriculum_softness == 0)
      return Wrong("soft_curriculum_softness", "0", "more than 0");
  }
  return absl::OkStatus();
}

absl::Status FillLoss(const AlgorithmOptions& o, const Profile& profile,
                      const Pieces& pieces, Recipe& recipe) {
  ATOD_ASSIGN_OR_RETURN(
      recipe.signal.current,
      OneOf("delta_student", o.delta_student, kDeltaStudents));
  recipe.signal.scale = o.delta_scale;
  recipe.signal.clamp = o.delta_clamp;
  recipe.signal.return_to_go = o.return_to_go;
  if (recipe.signal.current && o.return_to_go > 0)
    return Wrong("return_to_go", absl::StrCat(o.return_to_go),
                 "0 with delta_student current");
  recipe.surrogate.clip_low = o.clip_low;
  recipe.surrogate.clip_high = o.clip_high;
  recipe.surrogate.dual_clip = o.dual_clip.value_or(profile.dual_clip);
  recipe.surrogate.importance_cap = o.importance_cap;
  ATOD_ASSIGN_OR_RETURN(recipe.surrogate.turn_ratio,
                        OneOf("ratio_level", o.ratio_level, kRatioLevels));
  recipe.aux.entropy_coef = o.entropy_coef.value_or(profile.entropy_coef);
  recipe.aux.kl_coef = o.kl_loss_coef;
  ATOD_ASSIGN_OR_RETURN(recipe.aux.kl_estimator,
                        OneOf("kl_estimator", o.kl_estimator, kEstimators));
  if (pieces.sdar) {
    recipe.aux.sdar_lambda = o.sdar_lambda;
    recipe.aux.sdar_beta = o.sdar_beta;
  }
  ATOD_ASSIGN_OR_RETURN(
      recipe.aggregation.how,
      OneOf("aggregation", o.aggregation.value_or(profile.aggregation),
            kAggregations));
  recipe.aggregation.rows = o.aggregation_rows;
  return absl::OkStatus();
}

absl::StatusOr<Schedule> Coefficient(const std::string& name,
                                     Pieces::Coefficient kind, double init,
                                     double end, int steps,
                                     const std::optional<double>& given) {
  switch (kind) {
    case kZero:
      return Constant(0);
    case kInit:
      return Constant(init);
    case kAnnealed:
      return Schedule{init, end, steps};
    case kGiven:
      break;
  }
  ATOD_ASSIGN_OR_RETURN(const double value,
                        Given(absl::StrCat(name, "_coef_constant"), given,
                              "the ablation without annealing"));
  return Constant(value);
}

}  // namespace

double Schedule::At(int step) const {
  const double progress = std::min(
      static_cast<double>(step) / static_cast<double>(anneal_steps), 1.0);
  if (progress >= 1.0) return end;
  return init + (end - init) * progress;
}

absl::StatusOr<Recipe> MakeRecipe(const AlgorithmOptions& o) {
  ATOD_RETURN_IF_ERROR(CheckRanges(o));
  ATOD_ASSIGN_OR_RETURN(const Profile profile,
                        OneOf("profile", o.profile, kProfiles));
  ATOD_ASSIGN_OR_RETURN(const Pieces pieces,
                        OneOf("recipe", o.recipe, kRecipes));
  Recipe recipe;
  const int steps = o.coef_anneal_steps.value_or(profile.anneal_steps);
  ATOD_ASSIGN_OR_RETURN(
      recipe.kl, Coefficient("kl", pieces.kl, o.kl_coef_init, o.kl_coef_min,
                             steps, o.kl_coef_constant));
  ATOD_ASSIGN_OR_RETURN(
      recipe.rl, Coefficient("rl", pieces.rl, o.rl_coef_init, o.rl_coef_max,
                             steps, o.rl_coef_constant));
  ATOD_RETURN_IF_ERROR(FillWeights(o, profile, pieces, recipe));
  ATOD_RETURN_IF_ERROR(FillLoss(o, profile, pieces, recipe));
  ATOD_RETURN_IF_ERROR(
      FillReward(o, profile, recipe.aux.kl_estimator, recipe.reward));
  recipe.duplicate_rows_to = o.duplicate_rows_to;
  if (pieces.tcod) {
    ATOD_ASSIGN_OR_RETURN(recipe.rollout.mode,
                          OneOf("tcod_mode", o.tcod_mode, kTcodModes));
    recipe.rollout.steps = static_cast<uint32_t>(o.tcod_steps);
  }
  recipe.needs_teacher = pieces.kl != kZero || recipe.weight.needs_teacher;
  recipe.needs_reference =
      o.kl_loss_coef > 0 || o.kl_reward_coef > 0 || o.delta_scale != 1;
  recipe.needs_context = pieces.sdar;
  return recipe;
}

}  // namespace atod::learner
