// The renderer against complete prompts that the authors' framework rendered.
#include "common/prompt/released.h"

#include <cstdio>
#include <filesystem>

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/prompt/render.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod {
namespace {

using nlohmann::json;

class ReleasedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string path =
        CompatDataDir() + "/verl-agent-prompts/prompts_golden.json";
    if (!std::filesystem::exists(path)) {
      std::puts("SKIPPED: no compatibility data");
      GTEST_SKIP();
    }
    golden_ = *ParseJson(*ReadFile(path), path);
  }

  json golden_;
};

// The actions that stand in a rendered list of quoted ones.
std::vector<std::string> Quoted(const std::string& prompt,
                                const std::string& open,
                                const std::string& close,
                                const std::string& between) {
  const size_t begin = prompt.find(open) + open.size();
  const size_t end = prompt.find(close, begin);
  std::vector<std::string> out;
  for (size_t i = begin; i < end;) {
    const size_t stop = std::min(prompt.find(between, i), end);
    out.push_back(prompt.substr(i, stop - i));
    i = stop + between.size();
  }
  return out;
}

// `action` as the environment executed it: the next prompt's history says.
std::string ActionFrom(const std::string& prompt, size_t turn) {
  const std::string open = "Action " + std::to_string(turn) + ": '";
  const size_t begin = prompt.find(open) + open.size();
  return prompt.substr(begin, prompt.find("']", begin) - begin);
}

TEST_F(ReleasedTest, AlfworldPromptsAreEqualToTheByte) {
  const auto spec = ReleasedPromptSpec("alfworld");
  ASSERT_TRUE(spec.ok()) << spec.status();
  for (const json& episode : golden_["alfworld"]) {
    PromptInputs inputs;
    inputs.task = episode["task"];
    std::string want = episode["prompt0"];
    const std::string open = "current observation is: ";
    size_t begin = want.find(open) + open.size();
    inputs.observation =
        want.substr(begin, want.find("\nYour admissible", begin) - begin);
    for (size_t i = 0;; ++i) {
      inputs.admissible = Quoted(want, "situation are: ['", "'].", "'\n '");
      inputs.admissible.push_back("help");  // which the prompt does not show
      EXPECT_EQ(RenderPrompt(*spec, inputs), want) << "turn " << i;
      if (i == episode["steps"].size()) break;
      want = episode["steps"][i]["prompt"];
      inputs.turn_index = static_cast<uint32_t>(i + 1);
      inputs.history.push_back({inputs.observation, ActionFrom(want, i + 1)});
      inputs.observation = episode["steps"][i]["anchor"];
    }
    EXPECT_EQ(inputs.history.size(), 9u);
    // The window is enough: older records may be left out.
    inputs.history.erase(inputs.history.begin(), inputs.history.end() - 2);
    EXPECT_EQ(RenderPrompt(*spec, inputs), want);
  }
}

TEST_F(ReleasedTest, WebshopPromptsAreEqualToTheByte) {
  const auto spec = ReleasedPromptSpec("webshop");
  ASSERT_TRUE(spec.ok()) << spec.status();
  for (const json& episode : golden_["webshop"]) {
    PromptInputs inputs;
    inputs.task = episode["task"];
    std::string want = episode["prompt0"];
    inputs.observation = episode["anchor0"];
    for (size_t i = 0;; ++i) {
      inputs.admissible = Quoted(want, "are: \n[\n'", "',\n].", "',\n'");
      EXPECT_EQ(RenderPrompt(*spec, inputs), want) << "turn " << i;
      if (i == episode["steps"].size()) break;
      want = episode["steps"][i]["prompt"];
      inputs.turn_index = static_cast<uint32_t>(i + 1);
      inputs.history.push_back({inputs.observation, ActionFrom(want, i + 1)});
      inputs.observation = episode["steps"][i]["anchor"];
    }
  }
}

TEST_F(ReleasedTest, SearchPromptsAreEqualToTheByte) {
  const auto spec = ReleasedPromptSpec("search");
  ASSERT_TRUE(spec.ok()) << spec.status();
  ASSERT_FALSE(golden_["search"].empty());
  for (const json& episode : golden_["search"]) {
    PromptInputs inputs;
    inputs.task = episode["question"];
    inputs.observation = inputs.task;
    EXPECT_EQ(RenderPrompt(*spec, inputs), episode["prompt0"]);
    for (const json& step : episode["steps"]) {
      if (step["done"] == true) break;  // no prompt follows
      inputs.history.push_back(
          {inputs.observation, step["info"]["postprocessed_action"]});
      inputs.observation = step["anchor"];
      ++inputs.turn_index;
      EXPECT_EQ(RenderPrompt(*spec, inputs), step["prompt"]);
    }
  }
}

TEST_F(ReleasedTest, AnUnknownEnvironmentIsRefused) {
  EXPECT_THAT(ReleasedPromptSpec("chess").status().message(),
              ::testing::HasSubstr("found chess, expected alfworld"));
}

TEST(ReleasedDataTest, AbsentDataIsNotFound) {
  EXPECT_EQ(ReleasedPromptSpec("alfworld", "/nonexistent").status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace atod
