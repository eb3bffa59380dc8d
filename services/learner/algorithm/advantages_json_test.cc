#include "services/learner/algorithm/advantages_json.h"

#include <cmath>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/learner/recipe_for_test.h"

namespace atod::learner {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kBatch[] = R"({"trajectories": [
  {"id": "t0", "group": "g0", "reward": 10.0, "turns": [
    {"student_logprobs": [-0.5, -1.0], "teacher_logprobs": [-0.25, -0.5],
     "valid_action": true},
    {"student_logprobs": [-0.125], "teacher_logprobs": [-2.125]},
    {"student_logprobs": [-0.25, -0.25, -0.25, -0.25],
     "teacher_logprobs": [-0.25, -0.5, -0.25, -0.5]},
    {"student_logprobs": [-0.5, -0.5], "teacher_logprobs": [-1, -1.5]}]},
  {"id": "t1", "group": "g0", "reward": 0, "turns": [
    {"student_logprobs": [-1], "teacher_logprobs": [-1],
     "valid_action": false}]}]})";

json Compute(const json& batch, const Settings& options = {}, int step = 40) {
  const auto line =
      AdvantagesOfJson(batch.dump(), "b.json", RecipeFor(options), step);
  EXPECT_TRUE(line.ok()) << line.status();
  return line.ok() ? json::parse(*line) : json();
}

std::string TextError(const std::string& text, const Settings& options = {}) {
  return std::string(AdvantagesOfJson(text, "b.json", RecipeFor(options), 1)
                         .status()
                         .message());
}

std::string Error(const json& batch, const Settings& options = {}) {
  return TextError(batch.dump(), options);
}

TEST(AdvantagesJson, PrintsStatisticsOfEveryTurnAndToken) {
  const json out = Compute(json::parse(kBatch));
  EXPECT_EQ(out["step"], 40);
  EXPECT_NEAR(out["kl_coef"], 0.55, 1e-15);
  EXPECT_NEAR(out["rl_coef"], 1.5, 1e-15);
  const json& t0 = out["trajectories"][0];
  EXPECT_EQ(t0["id"], "t0");
  EXPECT_EQ(t0["group"], "g0");
  EXPECT_NEAR(t0["turns"][3]["w"], 11. / 15, 1e-12);
  EXPECT_EQ(t0["turns"][0]["d"], 0.375);
  EXPECT_EQ(t0["turns"][0]["h"], 0.75);
  EXPECT_NEAR(t0["turns"][0]["d_norm"], 2. / 15, 1e-12);
  EXPECT_EQ(t0["turns"][0]["h_norm"], 1);
  const double reward_term = 1.5 * t0["grpo_advantage"].get<double>();
  EXPECT_NEAR(t0["turns"][1]["advantages"][0].get<double>(),
              reward_term - 0.55 * 2, 1e-12);
  // The invalid turn of t1 counts against its reward.
  EXPECT_NEAR(out["trajectories"][1]["grpo_advantage"],
              -5.05 / (10.1 / std::sqrt(2) + 1e-6), 1e-12);
  EXPECT_EQ(out["metrics"]["hybrid/kl_coef"], out["kl_coef"]);
  EXPECT_FALSE(out.contains("loss"));
}

TEST(AdvantagesJson, CurrentLogProbsGiveTheLoss) {
  json batch = json::parse(R"({"trajectories": [{"id": "a", "group": "g",
      "reward": 1, "turns": [{"student_logprobs": [-1, -1],
      "teacher_logprobs": [-0.5, -2], "current_logprobs": [-0.9, -0.5]}]}]})");
  Settings options;
  options["recipe"] = "opd";
  const json out = Compute(batch, options);
  // Advantages 0.5 and -1, ratios e^0.1 and e^0.5; the second is not clipped
  // because a negative advantage only clips below.
  const double first = -0.5 * std::exp(0.1), second = std::exp(0.5);
  const json& terms = out["trajectories"][0]["turns"][0]["loss_terms"];
  EXPECT_NEAR(terms[0], first, 1e-12);
  EXPECT_NEAR(terms[1], second, 1e-12);
  EXPECT_NEAR(out["loss"], (first + second) / 2, 1e-12);
}

TEST(AdvantagesJson, GroupsGoByNameWhereverTheyStand) {
  json batch = json::parse(kBatch);
  json other = batch["trajectories"][0];
  other["id"] = "x";
  other["group"] = "g1";
  batch["trajectories"].insert(batch["trajectories"].begin() + 1, other);
  const json expected = Compute(json::parse(kBatch));
  const json out = Compute(batch);
  EXPECT_EQ(out["trajectories"][0], expected["trajectories"][0]);
  EXPECT_EQ(out["trajectories"][1]["grpo_advantage"], 0);
  EXPECT_EQ(out["trajectories"][2], expected["trajectories"][1]);
}

// The batch above with the log-probs that a loss may need.
json WithLosses() {
  json batch = json::parse(kBatch);
  for (json& trajectory : batch["trajectories"])
    for (json& turn : trajectory["turns"])
      for (const char* key :
           {"current_logprobs", "reference_logprobs", "context_logprobs"})
        for (const json& x : turn["student_logprobs"])
          turn[key].push_back(x.get<double>() - .125);
  return batch;
}

TEST(AdvantagesJson, EveryRecipeAndProfileHasAdvantagesAndALoss) {
  for (const char* profile : {"paper", "default", "released"}) {
    for (const char* recipe :
         {"atod", "opd", "grpo", "sod", "tcod", "sdar", "atod_token",
          "atod_token_fair", "atod_one", "atod_one_matched", "atod_constant"}) {
      Settings options;
      options["recipe"] = recipe;
      options["profile"] = profile;
      options["kl_coef_constant"] = options["rl_coef_constant"] = 1;
      options["kl_loss_coef"] = .01;
      const json out = Compute(WithLosses(), options);
      EXPECT_TRUE(out["loss"].is_number()) << recipe << " " << profile;
      const json& turn = out["trajectories"][0]["turns"][2];
      EXPECT_EQ(turn["advantages"].size(), 4u);
      EXPECT_EQ(turn["loss_terms"].size(), 4u);
      EXPECT_EQ(turn.contains("grpo_advantage"),
                profile == std::string("released"));
      EXPECT_EQ(turn.contains("token_w"),
                std::string(recipe).starts_with("atod_token"));
    }
  }
}

TEST(AdvantagesJson, TheLossHasItsKlAndItsSelfDistillation) {
  Settings options;
  options["recipe"] = "sdar";
  options["sdar_lambda"] = .5;
  options["sdar_beta"] = 3;
  json batch = WithLosses();
  for (json& trajectory : batch["trajectories"]) trajectory["reward"] = 0;
  // Current and context are equal, and the reward is flat: nothing is left.
  EXPECT_NEAR(Compute(batch, options)["loss"], 0, 1e-15);
  for (json& trajectory : batch["trajectories"])
    for (json& turn : trajectory["turns"])
      for (json& x : turn["context_logprobs"]) x = x.get<double>() + .1;
  const double gate = 1 / (1 + std::exp(-.3));
  EXPECT_NEAR(Compute(batch, options)["loss"], .5 * gate * .1, 1e-12);
  options["kl_loss_coef"] = 2;
  options["kl_estimator"] = "k2";
  for (json& trajectory : batch["trajectories"])
    for (json& turn : trajectory["turns"])
      for (json& x : turn["reference_logprobs"]) x = x.get<double>() - .2;
  EXPECT_NEAR(Compute(batch, options)["loss"], .5 * gate * .1 + 2 * .02, 1e-12);
  for (json& trajectory : batch["trajectories"])
    for (json& turn : trajectory["turns"]) turn.erase("context_logprobs");
  EXPECT_THAT(std::string(AdvantagesOfJson(batch.dump(), "b.json",
                                           RecipeFor(options), 1)
                              .status()
                              .message()),
              ::testing::HasSubstr("context_logprobs: found nothing"));
}

TEST(AdvantagesJson, DuplicatedRowsCountButAreNotPrinted) {
  Settings options;
  options["profile"] = "released";
  const json plain = Compute(json::parse(kBatch), options);
  options["duplicate_rows_to"] = 16;
  const json padded = Compute(json::parse(kBatch), options);
  for (int i : {0, 1})
    EXPECT_EQ(padded["trajectories"][i]["turns"].size(),
              plain["trajectories"][i]["turns"].size());
  EXPECT_NE(padded["trajectories"][0]["turns"][0]["grpo_advantage"],
            plain["trajectories"][0]["turns"][0]["grpo_advantage"]);
}

TEST(AdvantagesJson, BadInputIsNamedByItsPath) {
  EXPECT_EQ(TextError("{"), "b.json:1: found an early end, expected JSON");
  EXPECT_EQ(Error(json::object()),
            "b.json: trajectories: found nothing, expected a list");
  json batch = json::parse(kBatch);
  batch["trajectories"][1]["id"] = "t0";
  EXPECT_EQ(Error(batch),
            "b.json: trajectories[1].id: found \"t0\", expected an id that "
            "occurs once");
  batch = json::parse(kBatch);
  batch["trajectories"][0]["turns"][2]["teacher_logprobs"].erase(0);
  EXPECT_EQ(Error(batch),
            "b.json: trajectories[0].turns[2].teacher_logprobs: found 3 "
            "numbers, expected 4, one for each student_logprob");
  batch = json::parse(kBatch);
  batch["trajectories"][0]["turns"][0]["student_logprobs"][1] = 0.5;
  EXPECT_EQ(Error(batch),
            "b.json: trajectories[0].turns[0].student_logprobs[1]: found 0.5, "
            "expected a log-prob: finite, at most 0.0001");
  batch = json::parse(kBatch);
  batch["trajectories"][1]["turns"][0].erase("teacher_logprobs");
  EXPECT_EQ(Error(batch),
            "b.json: trajectories[1].turns[0].teacher_logprobs: found nothing, "
            "expected the field in every turn or in none");
  batch = json::parse(kBatch);
  batch["trajectories"][1]["turns"] = "none";
  EXPECT_EQ(Error(batch),
            "b.json: trajectories[1].turns: found \"none\", expected a list");
}

TEST(AdvantagesJson, RewardsThatNoSumCanHoldAreRefused) {
  for (const char* reward : {"1e160", "-1.7e308"}) {
    json batch = json::parse(kBatch);
    batch["trajectories"][1]["reward"] = json::parse(reward);
    EXPECT_THAT(Error(batch), AllOf(HasSubstr("trajectories[1].reward: found "),
                                    HasSubstr("between -1e100 and 1e100")));
  }
  // Just inside, groups are normalised as ever.
  json batch = json::parse(kBatch);
  batch["trajectories"][0]["reward"] = 1e100;
  const json out = Compute(batch);
  EXPECT_NEAR(out["trajectories"][0]["grpo_advantage"], 1 / std::sqrt(2),
              1e-12);
  for (const char* text : {"1e400", "NaN", "Infinity", "\"10\"", "null"})
    EXPECT_THAT(TextError(R"({"trajectories": [{"id": "a", "group": "g",
        "turns": [], "reward": )" +
                          std::string(text) + "}]}"),
                HasSubstr("b.json"))
        << text;
}

TEST(AdvantagesJson, ALogProbThatRoundingPutAboveZeroIsTaken) {
  json batch = json::parse(kBatch);
  batch["trajectories"][0]["turns"][0]["student_logprobs"][1] = 1.2e-7;
  EXPECT_TRUE(Compute(batch).is_object());
}

TEST(AdvantagesJson, UnknownAndRepeatedKeysAreRefused) {
  json batch = json::parse(kBatch);
  batch["trajectories"][0]["turns"][1]["teacher_logprob"] = json::array();
  EXPECT_EQ(Error(batch),
            "b.json: trajectories[0].turns[1].teacher_logprob: found an "
            "unknown key, expected teacher_logprobs");
  batch = json::parse(kBatch);
  batch["trajectories"][1]["rewards"] = 3;
  EXPECT_EQ(Error(batch),
            "b.json: trajectories[1].rewards: found an unknown key, expected "
            "reward");
  batch = json::parse(kBatch);
  batch["step"] = 3;
  EXPECT_THAT(Error(batch), HasSubstr("step: found an unknown key"));
  EXPECT_THAT(TextError(R"({"trajectories": [{"id": "a", "group": "g",
        "reward": 1, "reward": 2, "turns": []}]})"),
              HasSubstr("reward: found the key again"));
}

TEST(AdvantagesJson, WhatOverflowsIsAnErrorAndNeverNull) {
  json batch = WithLosses();
  batch["trajectories"][0]["turns"][2]["student_logprobs"][1] = -2000;
  Settings unclipped;
  unclipped["recipe"] = "grpo";
  batch["trajectories"][0]["reward"] = -10;
  EXPECT_EQ(Error(batch, unclipped),
            "b.json: result trajectories[0].turns[2].loss_terms[1]: found no "
            "finite number, expected one: log-probs are too far apart");
  Settings kl;
  kl["recipe"] = "grpo";
  kl["kl_reward_coef"] = 1;
  batch = WithLosses();
  batch["trajectories"][1]["turns"][0]["student_logprobs"][0] = -2000;
  EXPECT_THAT(Error(batch, kl),
              AllOf(HasSubstr("reward less penalties and KL[1]: found -inf"),
                    HasSubstr("expected a finite number")));
  // In every member alike, which would look like equal rewards.
  batch = WithLosses();
  for (json& trajectory : batch["trajectories"])
    trajectory["turns"][0]["student_logprobs"][0] = -2000;
  EXPECT_THAT(Error(batch, kl), HasSubstr("KL[0]: found -inf"));
  batch = json::parse(kBatch);
  for (json& x : batch["trajectories"][0]["turns"][2]["student_logprobs"])
    x = -1e308;
  EXPECT_THAT(Error(batch), HasSubstr("finite number"));
}

}  // namespace
}  // namespace atod::learner
