#include "services/learner/step_orders.h"

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/problem.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/base/warn.h"
#include "services/learner/task_source.h"

namespace atod::learner {
namespace {

constexpr uint64_t kEvalNoiseStream = 0x65766e6f;
constexpr uint64_t kEvalEnvStream = 0x6576656e;

v1::Lease LeaseOf(const StepSettings& settings, const std::string& env,
                  const std::string& layout, const v1::Split& split,
                  const v1::Task& task, const v1::WeightVersion& version) {
  v1::Lease lease;
  lease.set_env(env);
  lease.set_split(split.name());
  lease.set_task_id(task.task_id());
  lease.set_content_hash(split.content_hash());
  *lease.mutable_weight_min() = version;
  *lease.mutable_weight_max() = version;
  v1::Sampling& sampling = *lease.mutable_sampling();
  sampling.set_temperature(static_cast<float>(settings.temperature));
  sampling.set_top_p(static_cast<float>(settings.top_p));
  sampling.set_top_k(settings.top_k);
  sampling.set_max_tokens(settings.max_tokens);
  lease.set_max_turns(settings.max_turns);
  lease.set_layout(layout);
  return lease;
}

}  // namespace

absl::StatusOr<std::unique_ptr<StepOrders>> StepOrders::Open(
    const v1::RunConfig& config, const Recipe& recipe, TaskDirectory& tasks) {
  std::unique_ptr<StepOrders> orders(new StepOrders(config, recipe, tasks));
  ATOD_ASSIGN_OR_RETURN(orders->train_,
                        tasks.GetSplit(config.env().train_split()));
  if (config.eval().every() > 0) ATOD_RETURN_IF_ERROR(orders->OpenPanel());
  if (recipe.needs_teacher) orders->teacher_ = config.teachers(0).name();
  ATOD_RETURN_IF_ERROR(orders->ReadFiles());
  return orders;
}

absl::Status StepOrders::OpenPanel() {
  const v1::EvalConfig& eval = config_.eval();
  ATOD_ASSIGN_OR_RETURN(panel_split_, tasks_.GetSplit(eval.split()));
  panel_ = MakePanel(eval.panel_seed(), panel_split_.size(), eval.panel_size());
  panel_hash_ = PanelHash(panel_split_.content_hash(), panel_);
  if (panel_.size() < eval.panel_size()) {
    LogWarning(absl::StrCat("eval.panel_size: found ", eval.panel_size(),
                            ", but split ", panel_split_.name(), " has ",
                            panel_split_.size(),
                            " tasks: evaluations are over ", panel_.size()));
  }
  return absl::OkStatus();
}

absl::Status StepOrders::ReadFiles() {
  const v1::EnvConfig& env = config_.env();
  if (recipe_.rollout.mode == RolloutPolicy::Mode::kBackToFront) {
    ATOD_ASSIGN_OR_RETURN(
        episodes_,
        StoredEpisodes::Load(env.episodes(), train_.name(),
                             train_.content_hash(), env.max_turns()));
    const bool few = 2 * episodes_->size() < train_.size();
    spdlog::log(few ? spdlog::level::warn : spdlog::level::info,
                "{}: episodes of {} of the {} training tasks; the others are "
                "played from their start",
                env.episodes(), episodes_->size(), train_.size());
  }
  if (recipe_.needs_context) {
    ATOD_ASSIGN_OR_RETURN(skills_, SkillBank::Load(env.skills()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<GroupOrder>> StepOrders::Training(
    const StepSettings& settings, const v1::WeightVersion& version) const {
  const v1::AlgorithmConfig& algorithm = config_.algorithm();
  const TaskSource source(config_.seed(), train_.size(),
                          algorithm.tasks_per_step());
  std::vector<GroupOrder> groups(algorithm.tasks_per_step());
  for (uint32_t g = 0; g < groups.size(); ++g) {
    GroupOrder& group = groups[g];
    const TaskChoice choice = source.Choose(settings.step, g);
    ATOD_ASSIGN_OR_RETURN(group.task,
                          tasks_.GetTask(train_.name(), choice.index));
    group.base = LeaseOf(settings, config_.env().name(), config_.layout(),
                         train_, group.task, version);
    group.base.set_env_seed(choice.env_seed);
    group.base.set_run_seed(config_.seed());
    ATOD_RETURN_IF_ERROR(Shape(settings, group.task, group.base));
    if (!teacher_.empty()) group.base.add_teachers(teacher_);
    group.samples = algorithm.group_size();
  }
  return groups;
}

absl::StatusOr<std::vector<GroupOrder>> StepOrders::Evaluation(
    const StepSettings& settings, const v1::WeightVersion& version) const {
  const uint64_t seed = config_.eval().panel_seed();
  std::vector<GroupOrder> groups(panel_.size());
  for (size_t i = 0; i < panel_.size(); ++i) {
    GroupOrder& group = groups[i];
    ATOD_ASSIGN_OR_RETURN(group.task,
                          tasks_.GetTask(panel_split_.name(), panel_[i]));
    group.base = LeaseOf(settings, config_.env().name(), config_.layout(),
                         panel_split_, group.task, version);
    group.base.set_env_seed(MixSeed(seed, kEvalEnvStream, panel_[i]));
    group.base.set_run_seed(MixSeed(seed, kEvalNoiseStream));
    group.base.mutable_sampling()->set_temperature(
        static_cast<float>(settings.eval_temperature));
    group.base.set_max_turns(settings.eval_max_turns);
  }
  return groups;
}

absl::Status StepOrders::Shape(const StepSettings& settings,
                               const v1::Task& task, v1::Lease& lease) const {
  if (episodes_.has_value()) {
    const std::vector<std::string>& actions =
        episodes_->ActionsOf(task.task_id());
    const uint32_t prefix = recipe_.rollout.PrefixLength(
        settings.step, static_cast<uint32_t>(actions.size()));
    lease.mutable_replay_actions()->Add(actions.begin(),
                                        actions.begin() + prefix);
  }
  if (skills_.has_value()) {
    lease.set_context(skills_->TextFor(task.category()));
    if (lease.context().empty()) {
      return BadInput({.file = config_.env().skills(),
                       .field = "skills",
                       .found = absl::StrCat("none for ", task.category()),
                       .expected = "a text for every task type"});
    }
  }
  return absl::OkStatus();
}

}  // namespace atod::learner
