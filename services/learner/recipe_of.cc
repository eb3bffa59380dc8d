#include "services/learner/recipe_of.h"

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/prompt/prompt_spec.h"
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

// A key that is not set is the profile's or the recipe's.
std::string Or(const std::string& value, const char* otherwise) {
  return value.empty() ? otherwise : value;
}

// Of a key without a default: the configuration has to say it.
absl::Status Given(const char* key, bool given, const std::string& whose) {
  if (given) return absl::OkStatus();
  return Wrong(key, "nothing",
               absl::StrCat("a number: ", whose, " has no published value"));
}

// Bounds of single keys are the loader's (config.proto).
absl::Status CheckTogether(const v1::AlgorithmConfig& c) {
  if (c.kl_coef_init() < c.kl_coef_min())
    return Wrong("kl_coef_init", absl::StrCat(c.kl_coef_init()),
                 absl::StrCat("at least kl_coef_min ", c.kl_coef_min()));
  if (c.rl_coef_max() < c.rl_coef_init())
    return Wrong("rl_coef_max", absl::StrCat(c.rl_coef_max()),
                 absl::StrCat("at least rl_coef_init ", c.rl_coef_init()));
  if (c.dual_clip() > 0 && c.dual_clip() < 1)
    return Wrong("dual_clip", absl::StrCat(c.dual_clip()), "at least 1, or 0");
  if (c.delta_student() == "current" && c.return_to_go() > 0)
    return Wrong("return_to_go", absl::StrCat(c.return_to_go()),
                 "0 with delta_student current");
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
constexpr std::pair<const char*, SodOptions::Mode> kSodModes[] = {
    {"stepwise", SodOptions::Mode::kStepwise},
    {"uniform", SodOptions::Mode::kUniform},
    {"gated", SodOptions::Mode::kGated}};

absl::Status FillReward(const v1::AlgorithmConfig& c, const Profile& profile,
                        RewardOptions& out) {
  out.penalty = c.invalid_action_penalty();
  ATOD_ASSIGN_OR_RETURN(
      out.penalty_place,
      OneOf("penalty_place", Or(c.penalty_place(), profile.penalty_place),
            kPlaces));
  ATOD_ASSIGN_OR_RETURN(
      out.penalty_order,
      OneOf("penalty_order", Or(c.penalty_order(), profile.penalty_order),
            kOrders));
  ATOD_ASSIGN_OR_RETURN(
      out.statistics,
      OneOf("statistics_over", Or(c.statistics_over(), profile.statistics_over),
            kUnits));
  ATOD_ASSIGN_OR_RETURN(
      out.group.raw_single,
      OneOf("singleton_group", Or(c.singleton_group(), profile.singleton_group),
            kSingletons));
  ATOD_ASSIGN_OR_RETURN(out.group.std,
                        OneOf("group_std", c.group_std(), kStds));
  if (out.penalty_place == Unit::kTurn && out.statistics == Unit::kTrajectory &&
      out.penalty_order != PenaltyOrder::kAfter) {
    return Wrong("penalty_place", "\"turn\"",
                 "\"episode\", or statistics_over turn, or penalty_order "
                 "after: an episode has one reward");
  }
  out.kl_coef = c.kl_reward_coef();
  ATOD_ASSIGN_OR_RETURN(out.kl_estimator,
                        OneOf("kl_estimator", c.kl_estimator(), kEstimators));
  return absl::OkStatus();
}

absl::Status FillWeights(const v1::AlgorithmConfig& c, const Profile& profile,
                         const Pieces& pieces, Recipe& recipe) {
  ATOD_ASSIGN_OR_RETURN(recipe.weight,
                        FindWeightPiece(Or(c.weights(), pieces.weights)));
  recipe.tdur.enabled = recipe.weight.uses_tdur;
  recipe.tdur.min_turns = c.has_tdur_min_turns()
                              ? static_cast<int>(c.tdur_min_turns())
                              : profile.min_turns;
  recipe.tdur.min_divergence = c.has_tdur_min_divergence()
                                   ? c.tdur_min_divergence()
                                   : profile.min_divergence;
  ATOD_ASSIGN_OR_RETURN(recipe.tdur.score,
                        OneOf("tdur_score", c.tdur_score(), kScores));
  recipe.weights.parameter = c.weight_parameter();
  SodOptions& sod = recipe.weights.sod;
  ATOD_ASSIGN_OR_RETURN(sod.mode, OneOf("sod_mode", c.sod_mode(), kSodModes));
  sod.delta = c.sod_delta();
  if (recipe.weight.name == "sod" && sod.mode == SodOptions::Mode::kGated) {
    const std::string whose = "SOD's gated mode";
    ATOD_RETURN_IF_ERROR(Given("sod_gate_min", c.has_sod_gate_min(), whose));
    ATOD_RETURN_IF_ERROR(Given("sod_gate_max", c.has_sod_gate_max(), whose));
    ATOD_RETURN_IF_ERROR(
        Given("sod_gate_slope", c.has_sod_gate_slope(), whose));
    sod.gate_min = c.sod_gate_min();
    sod.gate_max = c.sod_gate_max();
    sod.gate_slope = c.sod_gate_slope();
  }
  WeightModifiers& modifiers = recipe.modifiers;
  modifiers.kept_fraction = c.weight_kept_fraction();
  modifiers.floor = c.weight_floor();
  modifiers.mean_preserving = c.weight_mean_preserving();
  modifiers.curriculum_steps = static_cast<int>(c.soft_curriculum_steps());
  if (modifiers.curriculum_steps > 0) {
    ATOD_RETURN_IF_ERROR(Given("soft_curriculum_softness",
                               c.has_soft_curriculum_softness(),
                               "the soft curriculum"));
    modifiers.curriculum_softness = c.soft_curriculum_softness();
  }
  return absl::OkStatus();
}

absl::Status FillLoss(const v1::AlgorithmConfig& c, const Profile& profile,
                      const Pieces& pieces, Recipe& recipe) {
  ATOD_ASSIGN_OR_RETURN(
      recipe.signal.current,
      OneOf("delta_student", c.delta_student(), kDeltaStudents));
  recipe.signal.scale = c.delta_scale();
  recipe.signal.clamp = c.delta_clamp();
  recipe.signal.return_to_go = c.return_to_go();
  recipe.surrogate.clip_low = c.clip_low();
  recipe.surrogate.clip_high = c.clip_high();
  recipe.surrogate.dual_clip =
      c.has_dual_clip() ? c.dual_clip() : profile.dual_clip;
  recipe.surrogate.importance_cap = c.importance_cap();
  ATOD_ASSIGN_OR_RETURN(recipe.surrogate.turn_ratio,
                        OneOf("ratio_level", c.ratio_level(), kRatioLevels));
  recipe.aux.entropy_coef =
      c.has_entropy_coef() ? c.entropy_coef() : profile.entropy_coef;
  recipe.aux.kl_coef = c.kl_loss_coef();
  recipe.aux.kl_estimator = recipe.reward.kl_estimator;
  if (pieces.sdar) {
    recipe.aux.sdar_lambda = c.sdar_lambda();
    recipe.aux.sdar_beta = c.sdar_beta();
  }
  ATOD_ASSIGN_OR_RETURN(
      recipe.aggregation.how,
      OneOf("aggregation", Or(c.aggregation(), profile.aggregation),
            kAggregations));
  recipe.aggregation.rows = static_cast<int>(c.aggregation_rows());
  return absl::OkStatus();
}

absl::Status FillSchedules(const v1::AlgorithmConfig& c, const Profile& profile,
                           const Pieces& pieces, Recipe& recipe) {
  const int steps = c.has_coef_anneal_steps()
                        ? static_cast<int>(c.coef_anneal_steps())
                        : profile.anneal_steps;
  const auto schedule = [&](Pieces::Coefficient kind, double init, double end,
                            double given) -> Schedule {
    switch (kind) {
      case kZero:
        return {0, 0, 1};
      case kInit:
        return {init, init, 1};
      case kAnnealed:
        return {init, end, steps};
      case kGiven:
        break;
    }
    return {given, given, 1};
  };
  const std::string whose = "the ablation without annealing";
  if (pieces.kl == kGiven)
    ATOD_RETURN_IF_ERROR(
        Given("kl_coef_constant", c.has_kl_coef_constant(), whose));
  if (pieces.rl == kGiven)
    ATOD_RETURN_IF_ERROR(
        Given("rl_coef_constant", c.has_rl_coef_constant(), whose));
  recipe.kl = schedule(pieces.kl, c.kl_coef_init(), c.kl_coef_min(),
                       c.kl_coef_constant());
  recipe.rl = schedule(pieces.rl, c.rl_coef_init(), c.rl_coef_max(),
                       c.rl_coef_constant());
  recipe.first_step = static_cast<int>(c.first_step());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Recipe> RecipeOf(const v1::AlgorithmConfig& c) {
  ATOD_RETURN_IF_ERROR(CheckTogether(c));
  ATOD_ASSIGN_OR_RETURN(const Profile profile,
                        OneOf("profile", c.profile(), kProfiles));
  ATOD_ASSIGN_OR_RETURN(const Pieces pieces,
                        OneOf("recipe", c.recipe(), kRecipes));
  Recipe recipe;
  recipe.name = c.recipe();
  ATOD_RETURN_IF_ERROR(FillSchedules(c, profile, pieces, recipe));
  ATOD_RETURN_IF_ERROR(FillWeights(c, profile, pieces, recipe));
  ATOD_RETURN_IF_ERROR(FillReward(c, profile, recipe.reward));
  ATOD_RETURN_IF_ERROR(FillLoss(c, profile, pieces, recipe));
  recipe.duplicate_rows_to = static_cast<int>(c.duplicate_rows_to());
  if (pieces.tcod) {
    ATOD_ASSIGN_OR_RETURN(recipe.rollout.mode,
                          OneOf("tcod_mode", c.tcod_mode(), kTcodModes));
    recipe.rollout.steps = c.tcod_steps();
  }
  recipe.needs_teacher = pieces.kl != kZero || recipe.weight.needs_teacher;
  recipe.needs_reference =
      c.kl_loss_coef() > 0 || c.kl_reward_coef() > 0 || c.delta_scale() != 1;
  recipe.needs_context = pieces.sdar;
  return recipe;
}

absl::Status CheckRecipeInputs(const v1::RunConfig& config) {
  const v1::AlgorithmConfig& a = config.algorithm();
  ATOD_ASSIGN_OR_RETURN(const Recipe recipe, RecipeOf(a));
  const auto wrong = [](const char* field, const std::string& found,
                        const std::string& expected) {
    return BadInput({.file = "configuration",
                     .field = field,
                     .found = found,
                     .expected = expected});
  };
  const auto file = [&](const char* field, const std::string& path,
                        const char* what) -> absl::Status {
    if (path.empty()) return wrong(field, "nothing", what);
    if (std::filesystem::is_regular_file(path)) return absl::OkStatus();
    return wrong(field, absl::StrCat("no file ", path), what);
  };
  if (recipe.needs_teacher && config.teachers().empty()) {
    return wrong("teachers", "none",
                 absl::StrCat("a teacher for recipe ", a.recipe()));
  }
  if (recipe.rollout.mode == RolloutPolicy::Mode::kBackToFront) {
    ATOD_RETURN_IF_ERROR(file("env.episodes", config.env().episodes(),
                              "a file of `atod collect` for tcod_mode b2f"));
  }
  if (recipe.needs_context) {
    ATOD_RETURN_IF_ERROR(file("env.skills", config.env().skills(),
                              "a file of skill texts for recipe sdar"));
  }
  if (config.layout() == kGrowing) {
    // What such an episode has shown cannot be shown otherwise.
    const char* windowed = "windowed for ";
    if (recipe.rollout.mode == RolloutPolicy::Mode::kBackToFront)
      return wrong("layout", config.layout(),
                   absl::StrCat(windowed,
                                "tcod_mode b2f, whose prefixes hold "
                                "actions and no responses"));
    if (recipe.needs_context)
      return wrong("layout", config.layout(),
                   absl::StrCat(windowed, "recipe ", a.recipe(),
                                ", whose context stands before each turn"));
  }
  const uint64_t episodes = uint64_t{a.tasks_per_step()} * a.group_size();
  if (config.optimizer().updates_per_step() > episodes) {
    return wrong(
        "optimizer.updates_per_step",
        absl::StrCat(config.optimizer().updates_per_step()),
        absl::StrCat("at most ", episodes, ", the episodes of a step"));
  }
  return absl::OkStatus();
}

}  // namespace atod::learner
