#include "services/rollout/evaluate.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/rollout/fakes.h"

namespace atod::rollout {
namespace {

using ::testing::SizeIs;

std::vector<EvalTask> Tasks(size_t count) {
  std::vector<EvalTask> tasks;
  for (size_t i = 0; i < count; ++i) {
    tasks.push_back({absl::StrCat("len-", 1 + i % 9), i});
  }
  return tasks;
}

EvalOptions Options(size_t slots) {
  EvalOptions options;
  options.env = "corridor";
  options.split = "train";
  options.max_turns = 5;
  options.sampling.max_tokens = 20;
  options.slots = slots;
  options.max_context = 200;
  return options;
}

TEST(EvaluateModel, ResultsComeInTheOrderOfTheTasks) {
  const auto tokenizer = ByteTokenizer();
  FakeEngine engine([](const engine::EngineRequest&) { return " go"; });
  FakeEnvs envs;
  const auto results =
      EvaluateModel(engine, envs, *tokenizer, Tasks(30), Options(4));
  ASSERT_TRUE(results.ok()) << results.status();
  ASSERT_THAT(*results, SizeIs(30));
  for (size_t i = 0; i < 30; ++i) {
    const EvalResult& r = (*results)[i];
    const uint32_t length = 1 + i % 9;
    EXPECT_EQ(r.task_id, Tasks(30)[i].task_id);
    EXPECT_EQ(r.success, length <= 5);
    EXPECT_EQ(r.length, std::min<uint32_t>(length, 5));
    EXPECT_EQ(r.reward, length <= 5 ? 10 : 0);
    EXPECT_EQ(r.category, "hall");
    EXPECT_EQ(r.invalid_turns, 0);
  }
  EXPECT_EQ(SuccessRate(*results), 18.0 / 30);
}

TEST(EvaluateModel, NumberOfSlotsChangesNothing) {
  const auto tokenizer = ByteTokenizer();
  const auto play = [&](size_t slots, uint64_t seed) {
    FakeEngine engine([](const engine::EngineRequest& request) {
      return NoiseUniform(request.noise) < 0.5 ? " wait" : "go";
    });
    FakeEnvs envs;
    EvalOptions options = Options(slots);
    options.run_seed = seed;
    std::string all;
    const auto results =
        EvaluateModel(engine, envs, *tokenizer, Tasks(20), options);
    EXPECT_TRUE(results.ok()) << results.status();
    for (const EvalResult& r : *results) {
      absl::StrAppend(&all, r.success, r.length, ".", r.invalid_turns, " ");
    }
    return all;
  };
  EXPECT_EQ(play(1, 5), play(20, 5));
  EXPECT_NE(play(20, 5), play(20, 6));
}

TEST(EvaluateModel, EpisodeThatCannotBeginIsAnErrorAndNoLoss) {
  const auto tokenizer = ByteTokenizer();
  FakeEngine engine([](const engine::EngineRequest&) { return " go"; });
  FakeEnvs envs;
  EvalOptions options = Options(4);
  options.max_context = 22;  // "at >" does not fit beside 20 tokens
  const auto results =
      EvaluateModel(engine, envs, *tokenizer, Tasks(3), options);
  ASSERT_TRUE(results.ok()) << results.status();
  const ErrorCount errors = CountErrors(*results);
  EXPECT_EQ(errors.episodes, 3);
  EXPECT_EQ(errors.kinds, "prompt 3");
  EXPECT_THAT(errors.first, testing::HasSubstr("len-1: prompt: turn 0"));
}

TEST(SuccessRate, LeavesErrorsOut) {
  std::vector<EvalResult> results(5);
  results[0].success = true;
  results[1].error = "task";
  results[2].error = "prompt";
  results[3].error = "task";
  EXPECT_EQ(SuccessRate(results), 0.5);
  EXPECT_EQ(CountErrors(results).kinds, "prompt 1, task 2");
  EXPECT_EQ(SuccessRate({results[1]}), 0);
}

TEST(EvaluateModel, SplitThatIsNotThereIsAnErrorOfTheCall) {
  const auto tokenizer = ByteTokenizer();
  FakeEngine engine([](const engine::EngineRequest&) { return " go"; });
  FakeEnvs envs;
  EvalOptions options = Options(4);
  options.split = "nowhere";
  EXPECT_EQ(EvaluateModel(engine, envs, *tokenizer, Tasks(2), options)
                .status()
                .code(),
            absl::StatusCode::kFailedPrecondition);
}

// Won by the action that the observation names.
class Riddle final : public envs::Environment {
 public:
  Riddle() { description_.default_max_turns = 3; }
  const envs::EnvDescription& description() const override {
    return description_;
  }
  absl::StatusOr<envs::TaskInfo> GetTask(std::string_view,
                                         uint32_t) const override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::unique_ptr<envs::Episode>> Start(
      const envs::EpisodeOptions& options) const override {
    if (options.task_id.empty()) return absl::NotFoundError("task_id");
    return std::make_unique<Play>(options.task_id);
  }

 private:
  class Play final : public envs::Episode {
   public:
    explicit Play(const std::string& answer) {
      seen_.text = answer;
      seen_.category = "riddle";
    }
    const envs::Observation& observation() const override { return seen_; }
    envs::StepResult StepText(std::string_view) override { return {}; }
    envs::StepResult StepAction(std::string_view action) override {
      seen_.success = seen_.done = action == seen_.text;
      seen_.reward = seen_.success ? 10 : 0;
      envs::StepResult result;
      result.action_valid = true;
      result.observation = seen_;
      return result;
    }

   private:
    envs::Observation seen_;
  };
  envs::EnvDescription description_;
};

TEST(EvaluatePlayers, EachTaskHasAPlayerOfItsOwn) {
  const Riddle env;
  const auto make = [](size_t index) -> Player {
    // The i-th player needs i + 1 turns.
    auto turn = std::make_shared<size_t>(0);
    return [turn, index](const envs::Observation& seen) {
      return (*turn)++ == index ? seen.text : std::string("?");
    };
  };
  const auto results = EvaluatePlayers(
      env, make, {{"a", 0}, {"b", 0}, {"c", 0}, {"d", 0}}, EvalOptions());
  ASSERT_TRUE(results.ok()) << results.status();
  ASSERT_THAT(*results, SizeIs(4));
  EXPECT_EQ((*results)[1].length, 2);
  EXPECT_EQ((*results)[2].reward, 10);
  EXPECT_TRUE((*results)[2].success);
  EXPECT_FALSE((*results)[3].success);  // the limit came first
  EXPECT_EQ((*results)[3].length, 3);
  EXPECT_EQ(SuccessRate(*results), 0.75);
  const auto broken = EvaluatePlayers(env, make, {{"", 0}}, EvalOptions());
  ASSERT_TRUE(broken.ok()) << broken.status();
  EXPECT_EQ((*broken)[0].error, "task");
}

}  // namespace
}  // namespace atod::rollout
