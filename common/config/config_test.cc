#include "common/config/config.h"

#include <sstream>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/rng.h"
#include "common/config/program_args.h"
#include "common/config/reference.h"
#include "common/config/schema.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace atod::config {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::AllOf;
using testing::Eq;
using testing::HasSubstr;
using testing::Not;

// The message of the refusal of `yaml`, "OK" when it is taken.
std::string Refusal(const std::string& yaml,
                    const std::vector<std::string>& sets = {}) {
  const auto loaded = ParseRunConfig(yaml, "run.yaml", sets);
  return loaded.ok() ? "OK" : std::string(loaded.status().message());
}

TEST(LoadRunConfig, FillsEveryKeyThatHasADefault) {
  const auto loaded = LoadRunConfig({});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->config.steps(), 150u);
  EXPECT_EQ(loaded->config.optimizer().lr(), 1e-6);
  EXPECT_EQ(loaded->config.algorithm().group_size(), 8u);
  EXPECT_TRUE(loaded->config.sampling().train().has_temperature());
  EXPECT_FALSE(loaded->config.algorithm().has_tdur_min_turns());
  EXPECT_FALSE(loaded->config.algorithm().has_statistics_over());
  EXPECT_EQ(loaded->sources.at("sampling.train.top_p"), "default");
}

TEST(LoadRunConfig, EveryKeyIsDocumentedAndItsDefaultIsInItsOwnBounds) {
  std::vector<std::string> sets;
  for (const KeyInfo& key : AllKeys(*v1::RunConfig::descriptor())) {
    EXPECT_FALSE(key.doc.empty()) << key.path;
    if (key.def.has_value() && key.path.find("[]") == std::string::npos) {
      sets.push_back(key.path + "=" + *key.def);
    }
  }
  EXPECT_EQ(Refusal("", sets), "OK");
}

TEST(LoadRunConfig, RemembersWhereEachValueCameFrom) {
  const auto loaded = ParseRunConfig(
      "# a run\nsteps: 7\nteachers:\n  - name: a\n    path: x\n  - path: y\n",
      "run.yaml", {"optimizer.lr=0.5", "teachers.1.name=b", "seed=3"});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->config.steps(), 7u);
  EXPECT_EQ(loaded->config.teachers_size(), 2);
  EXPECT_EQ(loaded->config.teachers(1).path(), "y");
  EXPECT_EQ(loaded->config.teachers(1).name(), "b");
  EXPECT_EQ(loaded->sources.at("steps"), "run.yaml:2");
  EXPECT_EQ(loaded->sources.at("teachers.0.path"), "run.yaml:5");
  EXPECT_EQ(loaded->sources.at("teachers.1.name"), "--set");
  EXPECT_EQ(loaded->sources.at("optimizer.lr"), "--set");
  EXPECT_EQ(loaded->sources.at("name"), "default");
}

TEST(LoadRunConfig, AnOverrideMayAppendToAList) {
  const auto loaded = ParseRunConfig("", "", {"teachers.0.path=models/t"});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ASSERT_EQ(loaded->config.teachers_size(), 1);
  EXPECT_EQ(loaded->config.teachers(0).path(), "models/t");
  EXPECT_EQ(loaded->config.teachers(0).name(), "teacher");
  EXPECT_THAT(Refusal("", {"teachers.1.path=x"}),
              Eq("--set: teachers.1.path: found \"1\", expected "
                 "teachers.N.KEY with N from 0 to 0"));
}

TEST(LoadRunConfig, AnUnknownKeyIsRefusedWithTheNearestName) {
  EXPECT_THAT(Refusal("algorithm:\n  kl_coef_int: 1\n"),
              Eq("run.yaml:2: algorithm.kl_coef_int: found an unknown key, "
                 "expected kl_coef_init"));
  EXPECT_THAT(Refusal("lr: 1\n"), HasSubstr("expected optimizer.lr"));
  EXPECT_THAT(Refusal("optimizer:\n  zzzzzzzz: 1\n"),
              HasSubstr("expected one of: lr, warmup_steps"));
  EXPECT_THAT(Refusal("", {"algoritm.recipe=grpo"}),
              Eq("--set: algoritm: found an unknown key, expected algorithm"));
}

TEST(LoadRunConfig, WrongTypesAndValuesOutOfRangeNameFoundAndExpected) {
  EXPECT_EQ(Refusal("\nsteps: many\n"),
            "run.yaml:2: steps: found \"many\", expected an integer from 0 to "
            "10000000");
  EXPECT_EQ(Refusal("steps: -1\n"),
            "run.yaml:1: steps: found \"-1\", expected an integer from 0 to "
            "10000000");
  EXPECT_THAT(Refusal("steps: 1.5\n"), HasSubstr("expected an integer"));
  EXPECT_EQ(Refusal("optimizer: {lr: \"1e-6\"}\n"),
            "run.yaml:1: optimizer.lr: found the text \"1e-6\", expected a "
            "number from 0 to 10, without quotes");
  for (const char* quoted : {"steps: '15'", "deterministic: \"true\"",
                             "seed: \"\"", "sampling: {train: {top_k: '1'}}"})
    EXPECT_THAT(Refusal(quoted), HasSubstr(", without quotes")) << quoted;
  EXPECT_THAT(Refusal("", {"steps=\"15\""}), HasSubstr(", without quotes"));
  // Text may be quoted; a wrong choice is no matter of quotes.
  EXPECT_EQ(Refusal("device: 'tpu'\n"),
            "run.yaml:1: device: found \"tpu\", expected one of: cpu, cuda");
  EXPECT_THAT(Refusal("steps: 4294967296\n"), HasSubstr("4294967296"));
  EXPECT_THAT(Refusal("steps:\n"), HasSubstr("found nothing"));
  EXPECT_THAT(Refusal("steps: [1]\n"), HasSubstr("found a list"));
  EXPECT_THAT(Refusal("optimizer: 3\n"), HasSubstr("expected a section"));
  EXPECT_THAT(Refusal("teachers:\n  path: x\n"), HasSubstr("expected a list"));
  EXPECT_THAT(Refusal("teachers:\n  - x\n"),
              AllOf(HasSubstr("run.yaml:2: teachers.0"), HasSubstr("\"x\"")));
  EXPECT_THAT(Refusal("device: tpu\n"), HasSubstr("one of: cpu, cuda"));
  EXPECT_THAT(Refusal("rpc: {insecure: yes}\n"),
              HasSubstr("expected true or false"));
  for (const char* bad : {"nan", "inf", "0x10", "1e999", "-0.5", "1 2", "\"\""})
    EXPECT_THAT(Refusal(std::string("optimizer:\n  lr: ") + bad + "\n"),
                HasSubstr("run.yaml:2: optimizer.lr: found"))
        << bad;
  EXPECT_THAT(Refusal("", {"optimizer.lr=fast"}),
              HasSubstr("--set: optimizer.lr: found \"fast\", expected"));
  EXPECT_THAT(Refusal("", {"optimizer=1"}), HasSubstr("found a section"));
  EXPECT_THAT(Refusal("", {"steps.x=1"}), HasSubstr("found keys below steps"));
  EXPECT_THAT(Refusal("", {"steps"}), HasSubstr("expected KEY=VALUE"));
}

TEST(LoadRunConfig, BrokenYamlIsOneClearLine) {
  EXPECT_EQ(Refusal("steps: 1\nseed: 2\nsteps: 3\n"),
            "run.yaml:3: steps: found the key again, first on line 1, "
            "expected each key once");
  EXPECT_EQ(Refusal("optimizer:\n\tlr: 1\n"),
            "run.yaml:2: found a tab in the indentation, expected spaces");
  EXPECT_THAT(Refusal("a: [1\n"), HasSubstr("broken YAML"));
  EXPECT_THAT(Refusal("steps: 1\n---\nsteps: 2\n"),
              HasSubstr("a second YAML document"));
  EXPECT_THAT(Refusal(", a\nsteps: 1\n"), HasSubstr("text outside"));
  EXPECT_THAT(Refusal("- 1\n"), HasSubstr("found a list"));
  EXPECT_THAT(Refusal("name: a\xff\n"), HasSubstr("run.yaml:1: found byte"));
  EXPECT_THAT(Refusal("? [a]\n: 1\n"), HasSubstr("the name of a key"));
  EXPECT_THAT(Refusal("*x : 1\n"), Not(HasSubstr("\n")));
  EXPECT_THAT(Refusal(std::string(5000, '[')), HasSubstr("broken YAML"));
  EXPECT_EQ(Refusal("# only a comment\n"), "OK");
  EXPECT_EQ(Refusal("env:\nteachers:\n"), "OK");
}

TEST(LoadRunConfig, NoDamageToAFileDoesMoreThanOneErrorLine) {
  const std::string good = *ReadFile("deploy/configs/embedded.yaml");
  ASSERT_EQ(Refusal(good), "OK");
  const std::string odd = ":-#[]{}&*!|>'\"%@`,?\t\n \xff\x00~0eE.";
  Rng rng(1);
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string yaml = good;
    for (uint64_t edits = 1 + rng.Below(4); edits > 0; --edits) {
      const size_t at = rng.Below(yaml.size());
      switch (rng.Below(3)) {
        case 0:
          yaml[at] = odd[rng.Below(odd.size())];
          break;
        case 1:
          yaml.erase(at, 1 + rng.Below(40));
          break;
        default:
          yaml.insert(at, yaml.substr(rng.Below(yaml.size()), rng.Below(30)));
      }
      if (yaml.empty()) yaml = "a";
    }
    const auto loaded = ParseRunConfig(yaml, "run.yaml");
    if (loaded.ok()) continue;
    ++refused;
    const std::string message(loaded.status().message());
    ASSERT_THAT(message, testing::StartsWith("run.yaml")) << yaml;
    ASSERT_THAT(message, HasSubstr(", expected ")) << yaml;
    ASSERT_EQ(message.find('\n'), std::string::npos) << yaml;
  }
  EXPECT_GT(refused, 1000);
}

TEST(LoadRunConfig, ALaterFileOverridesKeysAndReplacesLists) {
  const std::string a = testing::TempDir() + "/config_test_a.yaml";
  const std::string b = testing::TempDir() + "/config_test_b.yaml";
  ASSERT_TRUE(WriteFileAtomic(a,
                              "steps: 7\noptimizer: {lr: 0.5, beta1: 0.1}\n"
                              "teachers: [{path: x, name: n}, {path: y}]\n")
                  .ok());
  ASSERT_TRUE(
      WriteFileAtomic(b, "optimizer: {lr: 0.25}\nteachers: [{path: z}]\n")
          .ok());
  const auto loaded = LoadRunConfig({a, b});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->config.steps(), 7u);
  EXPECT_EQ(loaded->config.optimizer().lr(), 0.25);
  EXPECT_EQ(loaded->config.optimizer().beta1(), 0.1);
  ASSERT_EQ(loaded->config.teachers_size(), 1);
  EXPECT_EQ(loaded->config.teachers(0).path(), "z");
  EXPECT_EQ(loaded->config.teachers(0).name(), "teacher");
  EXPECT_EQ(loaded->sources.at("optimizer.lr"), b + ":1");
  EXPECT_EQ(loaded->sources.at("teachers.0.name"), "default");
}

TEST(LoadRunConfig, AMissingFileIsNamed) {
  const auto loaded = LoadRunConfig({"/nonexistent/run.yaml"});
  EXPECT_TRUE(absl::IsNotFound(loaded.status()));
  EXPECT_THAT(std::string(loaded.status().message()),
              HasSubstr("/nonexistent/run.yaml"));
}

TEST(PrintConfig, SaysTheSourceOfEveryValueAndWhatIsNotSet) {
  const auto loaded = ParseRunConfig("steps: 7\n", "run.yaml", {"seed=4"});
  ASSERT_TRUE(loaded.ok());
  const std::string text = PrintConfig(*loaded);
  EXPECT_THAT(text, testing::ContainsRegex("\nsteps: 7 +# run.yaml:1\n"));
  EXPECT_THAT(text, testing::ContainsRegex("\nseed: 4 +# --set\n"));
  EXPECT_THAT(text, testing::ContainsRegex("\n  lr: 1.0e-06 +# default\n"));
  EXPECT_THAT(text, HasSubstr("  # tdur_min_turns is not set\n"));
}

TEST(ResolvedYaml, LoadsBackToAnEqualMessage) {
  const auto loaded = ParseRunConfig(
      "name: \"on\"\nseed: 18446744073709551615\nmodel:\n"
      "  path: \"a \\\"b\\\\c: d # e\\n\\u00e4 \"\n"
      "optimizer: {lr: 0.1234567890123456789, beta2: 1e-300}\n"
      "teachers:\n  - path: '12'\n  - name: \"- x\"\n",
      "run.yaml", {"env.data=null"});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const std::string yaml = ResolvedYaml(loaded->config);
  const auto again = ParseRunConfig(yaml, "config.resolved.yaml");
  ASSERT_TRUE(again.ok()) << again.status() << "\n" << yaml;
  EXPECT_TRUE(MessageDifferencer::Equals(loaded->config, again->config));
  EXPECT_EQ(ResolvedYaml(again->config), yaml);
  const auto printed = ParseRunConfig(PrintConfig(*loaded), "printed");
  ASSERT_TRUE(printed.ok()) << printed.status();
  EXPECT_TRUE(MessageDifferencer::Equals(loaded->config, printed->config));
}

TEST(ConfigReference, NamesEveryKeyAndTheSchemaBoundsThem) {
  const std::string page = ConfigReference();
  for (const KeyInfo& key : AllKeys(*v1::RunConfig::descriptor())) {
    EXPECT_THAT(page, HasSubstr("| `" + key.path + "` |"));
  }
  const nlohmann::json schema = nlohmann::json::parse(ValuesSchema());
  EXPECT_EQ(schema["additionalProperties"], false);
  EXPECT_EQ(schema["properties"]["steps"]["maximum"], 10000000);
  EXPECT_EQ(schema["properties"]["device"]["enum"][1], "cuda");
  EXPECT_EQ(schema["properties"]["teachers"]["type"], "array");
  EXPECT_EQ(schema["properties"]["optimizer"]["properties"]["lr"]["type"],
            "number");
}

struct Ran {
  ProgramStart start;
  std::string out;
  std::string err;
};

Ran RunArgs(std::vector<const char*> argv) {
  argv.insert(argv.begin(), "atod-x");
  std::ostringstream out, err;
  Ran ran;
  ran.start =
      ParseProgramArgs("atod-x", "does x", argv.size(), argv.data(), out, err);
  ran.out = out.str();
  ran.err = err.str();
  return ran;
}

TEST(ProgramArgs, AreParsed) {
  const Ran ran = RunArgs({"--set", "steps=3", "--set", "seed=9", "--index",
                           "2", "--dry-run", "--resume", "latest"});
  ASSERT_TRUE(ran.start.args.has_value()) << ran.err;
  EXPECT_EQ(ran.start.args->loaded.config.steps(), 3u);
  EXPECT_EQ(ran.start.args->loaded.config.seed(), 9u);
  EXPECT_EQ(ran.start.args->index, 2u);
  EXPECT_TRUE(ran.start.args->dry_run);
  EXPECT_EQ(ran.start.args->resume, "latest");
}

TEST(ProgramArgs, HelpAndPrintConfigEndWithStatusZero) {
  const Ran help = RunArgs({"--help"});
  EXPECT_FALSE(help.start.args.has_value());
  EXPECT_EQ(help.start.exit_status, 0);
  EXPECT_THAT(help.out, HasSubstr("--print-config"));
  const Ran print = RunArgs({"--print-config", "--set", "steps=3"});
  EXPECT_FALSE(print.start.args.has_value());
  EXPECT_EQ(print.start.exit_status, 0);
  EXPECT_THAT(print.out, testing::ContainsRegex("steps: 3 +# --set"));
}

TEST(ProgramArgs, BadOnesAreOneErrorLineAndStatusTwo) {
  for (const std::vector<const char*>& argv :
       {std::vector<const char*>{"--nonsense"},
        std::vector<const char*>{"--index", "x"},
        std::vector<const char*>{"--set", "steps=x"},
        std::vector<const char*>{"--config", "/nonexistent"}}) {
    const Ran ran = RunArgs(argv);
    EXPECT_FALSE(ran.start.args.has_value());
    EXPECT_EQ(ran.start.exit_status, 2);
    EXPECT_THAT(ran.err, testing::StartsWith("error: "));
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1);
  }
  EXPECT_EQ(ExitStatus(absl::OkStatus()), 0);
  EXPECT_EQ(ExitStatus(absl::InvalidArgumentError("x")), 2);
  EXPECT_EQ(ExitStatus(absl::FailedPreconditionError("x")), 2);
  EXPECT_EQ(ExitStatus(absl::UnavailableError("x")), 1);
}

TEST(RunConfig, AResponseMustLeaveRoomForThePrompt) {
  EXPECT_EQ(Refusal("model: {max_context: 512}\n"),
            "run.yaml:1: model.max_context: found 512, expected more than "
            "sampling.train.max_tokens, 512: prompt and response share it");
  EXPECT_THAT(
      Refusal("", {"model.max_context=64", "sampling.train.max_tokens=65"}),
      testing::StartsWith("--set: sampling.train.max_tokens: found 65"));
  EXPECT_TRUE(LoadRunConfig({}, {"model.max_context=513"}).ok());
}

TEST(RunConfig, TheEngineHasRoomForTheLongestRequestAndATokenOfEachSlot) {
  EXPECT_EQ(Refusal("rollout: {kv_tokens: 2559}\n"),
            "run.yaml:1: rollout.kv_tokens: found 2559, expected 0, or at "
            "least model.max_context, 2560");
  EXPECT_EQ(Refusal("rollout: {slots: 9, batch_tokens: 8}\n"),
            "run.yaml:1: rollout.batch_tokens: found 8, expected at least "
            "rollout.slots, 9");
  EXPECT_EQ(Refusal("rollout: {slots: 9000}\n"),
            "run.yaml:1: rollout.slots: found 9000, expected at most "
            "rollout.batch_tokens, 8192");
}

TEST(RunConfig, ATemperatureIsZeroOrLargeEnoughForFloat32) {
  for (const char* bad : {"0.005", "1e-9", "1e-40"}) {
    for (const char* key :
         {"sampling.train.temperature", "sampling.eval_temperature"}) {
      EXPECT_THAT(Refusal("", {absl::StrCat(key, "=", bad)}),
                  HasSubstr("expected 0 (greedy), or at least 0.01"));
      EXPECT_TRUE(LoadRunConfig({}, {absl::StrCat(key, "=0.01")}).ok());
      EXPECT_TRUE(LoadRunConfig({}, {absl::StrCat(key, "=0")}).ok());
    }
  }
}

TEST(RunConfig, ANameThatIsNotAPlainFolderNameIsRefused) {
  for (const char* name : {"", "../x", "a/b", ".hidden", "a b"}) {
    const auto loaded =
        LoadRunConfig({}, {absl::StrCat("name=\"", name, "\"")});
    EXPECT_FALSE(loaded.ok()) << name;
  }
  EXPECT_TRUE(LoadRunConfig({}, {"name=embedded-1.b_2"}).ok());
}

}  // namespace
}  // namespace atod::config
