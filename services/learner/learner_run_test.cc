#include "services/learner/learner_run.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "common/base/file.h"
#include "common/base/rng.h"
#include "common/checkpoint/safetensors.h"
#include "common/config/config.h"
#include "common/model/model_config.h"
#include "common/weights/snapshot_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/intake.h"
#include "services/learner/ledger_check.h"
#include "services/learner/recipe_of.h"
#include "services/learner/run_life.h"

namespace atod::learner {
namespace {

using ::testing::ElementsAre;
namespace fs = std::filesystem;

constexpr uint32_t kVocab = 708;  // of the test tokenizer

// A tiny model with random weights, written without torch.
void MakeModel(const std::string& dir) {
  model::ModelConfig config;
  config.vocab_size = kVocab;
  config.hidden_size = 16;
  config.intermediate_size = 32;
  config.num_hidden_layers = 1;
  config.num_attention_heads = 2;
  config.num_key_value_heads = 1;
  config.head_dim = 16;
  config.max_position_embeddings = 64;
  config.tie_word_embeddings = true;
  ASSERT_TRUE(MakeDirs(dir).ok());
  ASSERT_TRUE(WriteFileAtomic(dir + "/config.json",
                              model::ModelConfigJson(config, "float32"))
                  .ok());
  ASSERT_TRUE(fs::copy_file("common/tokenizer/testdata/qwen2/tokenizer.json",
                            dir + "/tokenizer.json",
                            fs::copy_options::overwrite_existing));
  Rng rng(3);
  std::vector<std::vector<float>> data;
  std::vector<TensorView> views;
  for (const model::ParameterSpec& spec : model::ParameterSpecs(config)) {
    int64_t count = 1;
    for (const int64_t d : spec.shape) count *= d;
    std::vector<float>& values = data.emplace_back(count);
    for (float& v : values)
      v = spec.shape.size() == 1 ? 1 : 0.2f * static_cast<float>(rng.Normal());
    views.push_back(
        {spec.name, "F32", spec.shape,
         absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values.data()),
                             values.size() * sizeof(float))});
  }
  ASSERT_TRUE(WriteSafetensors(dir + "/model.safetensors", views).ok());
}

class FakeTasks final : public TaskDirectory {
 public:
  absl::StatusOr<v1::Split> GetSplit(const std::string& split) override {
    v1::Split out;
    out.set_name(split);
    out.set_size(12);
    out.set_content_hash("hash of " + split);
    return out;
  }
  absl::StatusOr<v1::Task> GetTask(const std::string& split,
                                   uint32_t index) override {
    v1::Task task;
    task.set_task_id(absl::StrCat(split, index));
    task.set_category(index % 2 == 0 ? "pick" : "heat");
    return task;
  }
};

// Plays a lease without a model: everything follows from the keys of the noise.
v1::Trajectory Play(const v1::Lease& lease, uint32_t sample,
                    const std::string& run, uint32_t incarnation) {
  Rng rng(MixSeed(lease.run_seed(), lease.step(), lease.group(), sample));
  v1::Trajectory t;
  t.mutable_id()->set_run_id(run);
  t.mutable_id()->set_step(lease.step());
  t.mutable_id()->set_group(lease.group());
  t.mutable_id()->set_sample(sample);
  t.mutable_id()->set_attempt(lease.attempt());
  t.set_incarnation(incarnation);
  t.set_purpose(lease.purpose());
  t.set_env(lease.env());
  t.set_split(lease.split());
  t.mutable_task()->set_task_id(lease.task_id());
  t.set_env_seed(lease.env_seed());
  t.set_content_hash(lease.content_hash());
  t.set_layout(lease.layout());
  *t.mutable_sampling() = lease.sampling();
  const uint32_t turns = 3 + rng.Below(2);
  for (uint32_t k = 0; k < turns; ++k) {
    v1::Turn& turn = *t.add_turns();
    turn.set_index(k);
    turn.set_trainable(true);
    turn.set_valid(true);
    v1::Sequence& seq = *t.add_sequences();
    for (int i = 0; i < 8; ++i) seq.add_tokens(rng.Below(kVocab));
    if (!lease.context().empty())
      for (int i = 0; i < 9; ++i) seq.add_context_tokens(rng.Below(kVocab));
    v1::Span& span = *seq.add_spans();
    span.set_turn(k);
    span.set_begin(5);
    span.set_length(3);
    v1::VersionRun& version = *span.add_versions();
    version.set_count(3);
    *version.mutable_version() = lease.weight_max();
    for (int i = 0; i < 3; ++i)
      span.add_rollout_logprobs(-3 - static_cast<float>(rng.Uniform()));
    for (const std::string& name : lease.teachers()) {
      v1::TeacherScores& scores = *span.add_teacher();
      scores.set_model(name);
      scores.set_temperature(lease.sampling().temperature());
      for (int i = 0; i < 3; ++i)
        scores.add_logprobs(-2 - static_cast<float>(rng.Uniform()));
    }
  }
  const bool won = rng.Below(2) == 0;
  t.mutable_outcome()->set_success(won);
  t.mutable_outcome()->set_reward(won ? 10 : 0);
  t.mutable_outcome()->set_length(turns);
  return t;
}

// One life of a learner with a worker that answers at once.
class Life {
 public:
  Life(const v1::RunConfig& config, const std::string& resume)
      : config_(config), run_(config.runs_dir(), config.name()) {
    start_ = FindStart(run_, config.runs_dir(), {.resume = resume}).value();
    life_ = BeginLife(run_, config, start_, &registry_, clock_).value();
    device_ = OpenDevice("cpu").value();
    communicator_ = MakeLocalCommunicator();
    PolicyTrainerOptions options;
    recipe_ = RecipeOf(config.algorithm()).value();
    options.recipe = recipe_;
    options.updates_per_step = config.optimizer().updates_per_step();
    const CheckpointFolder from(start_.from.dir);
    const bool fresh = from.dir().empty();
    trainer_ = PolicyTrainer::Load(fresh ? config.model().path() : from.model(),
                                   options, communicator_.get(), device_.get())
                   .value();
    if (!fresh) {
      EXPECT_TRUE(trainer_->LoadOptimizer(from.optimizer()).ok());
    }
    CoordinatorOptions coordinator;
    coordinator.run_id = config.name();
    coordinator.incarnation = life_.incarnation;
    coordinator.backoff = absl::ZeroDuration();
    coordinator_ = std::make_unique<Coordinator>(coordinator, &clock_);
    intake_ = std::make_unique<Intake>(coordinator_.get(), life_.ledger.get(),
                                       life_.store.get(),
                                       TrajectoryLimits{kVocab, 64});
  }

  std::string teacher_hash = "weights of the teacher";
  // Done to each trajectory before it is handed in.
  std::function<void(v1::Trajectory&)> spoil = [](v1::Trajectory&) {};

  // Stops the run when `stop_at` work is granted ("train 4", "eval 2"). With
  // `shuffle` whole steps arrive together, in another order.
  absl::Status Run(const std::string& stop_at = "", uint64_t shuffle = 0) {
    v1::Hello hello;
    hello.set_worker("w");
    hello.set_slots(shuffle == 0 ? 5 : 100);
    Rng arrival(shuffle);
    std::vector<v1::Trajectory> held;
    Queue<int> wakes;
    const auto session =
        coordinator_->Connect(hello, [&] { wakes.Push(1); }).value();
    wakes.Push(1);
    std::thread worker([&] {
      while (wakes.Pop().has_value()) {
        const auto outbox = coordinator_->TakeOutbox(session);
        for (const auto& message : outbox.value()) {
          if (!message.has_grant()) continue;
          const v1::Lease& lease = message.grant().lease();
          leases_.push_back(lease);
          if (stop_at ==
              absl::StrCat(lease.purpose() == v1::EVAL ? "eval " : "train ",
                           lease.step())) {
            state_.RequestStop();
            coordinator_->Close();
            continue;
          }
          for (const uint32_t s : lease.samples()) {
            held.push_back(Play(lease, s, config_.name(), life_.incarnation));
            spoil(held.back());
          }
          const size_t whole = lease.purpose() == v1::EVAL
                                   ? config_.eval().panel_size()
                                   : config_.algorithm().tasks_per_step() *
                                         config_.algorithm().group_size();
          if (shuffle != 0 && held.size() < whole) continue;
          arrival.Shuffle(held);
          for (v1::Trajectory& t : held)
            intake_->Submit(
                std::move(t), [](absl::StatusOr<v1::SubmitReply> reply) {
                  EXPECT_EQ(reply->verdict(), v1::SubmitReply::ACCEPTED)
                      << reply->problem().field();
                });
          held.clear();
        }
      }
    });
    RunParts parts;
    parts.config = &config_;
    parts.recipe = &recipe_;
    parts.folder = &run_;
    parts.incarnation = life_.incarnation;
    parts.tokenizer_hash = "tokenizer";
    parts.teacher_hashes = {{"teacher", teacher_hash}};
    parts.coordinator = coordinator_.get();
    parts.ledger = life_.ledger.get();
    parts.trainer = trainer_.get();
    parts.tasks = &tasks_;
    parts.versions = &versions_;
    parts.state = &state_;
    parts.recorder = life_.recorder.get();
    parts.registry = &registry_;
    parts.clock = &clock_;
    const absl::Status status =
        LearnerRun(std::move(parts), start_.from.state).Run();
    wakes.Close();
    worker.join();
    return status;
  }

  // What was granted, in order; after Run.
  const std::vector<v1::Lease>& leases() const { return leases_; }

 private:
  const v1::RunConfig config_;
  const RunFolder run_;
  RunStart start_;
  std::vector<v1::Lease> leases_;
  Recipe recipe_;
  RealClock clock_;
  metrics::Registry registry_;
  RunLife life_;
  RunState state_;
  FakeTasks tasks_;
  weights::VersionStore versions_;
  std::unique_ptr<DeviceBackend> device_;
  std::unique_ptr<Communicator> communicator_;
  std::unique_ptr<PolicyTrainer> trainer_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<Intake> intake_;
};

class LearnerRunTest : public testing::Test {
 protected:
  LearnerRunTest() {
    root_ = testing::TempDir() + "learner_run";
    fs::remove_all(root_);
    MakeModel(root_ + "/model");
  }

  v1::RunConfig Config(const std::string& name) {
    return config::ParseRunConfig(
               absl::StrCat("name: ", name, "\nruns_dir: ", root_, R"(
steps: 6
model:
  max_context: 64
sampling:
  train:
    max_tokens: 8
teachers:
  - name: teacher
algorithm:
  group_size: 4
  tasks_per_step: 3
  coef_anneal_steps: 4
optimizer:
  lr: 1.0e-3
  updates_per_step: 2
eval:
  every: 2
  panel_size: 5
checkpoint:
  every: 3
  keep: 1
  keep_weights: true
)"),
               "test", {"model.path=" + root_ + "/model"})
        ->config;
  }

  // Of metrics.jsonl, to the byte.
  std::vector<std::string> Lines(const std::string& name) {
    // Absent when the run was stopped before anything was recorded.
    const std::string text =
        ReadFile(root_ + "/" + name + "/metrics.jsonl").value_or("");
    return absl::StrSplit(text, '\n', absl::SkipEmpty());
  }

  std::vector<std::string> Checkpoints(const std::string& name) {
    std::vector<std::string> out;
    for (const auto& entry :
         fs::directory_iterator(root_ + "/" + name + "/checkpoints"))
      out.push_back(entry.path().filename());
    std::sort(out.begin(), out.end());
    return out;
  }

  std::string root_;
};

TEST_F(LearnerRunTest, ARunRecordsEveryStepOnceAndItsLedgerHolds) {
  ASSERT_TRUE(Life(Config("a"), "").Run().ok());
  const std::vector<std::string> lines = Lines("a");
  ASSERT_EQ(lines.size(), 7u);
  for (size_t i = 0; i < lines.size(); ++i) {
    const auto json = nlohmann::json::parse(lines[i]);
    EXPECT_EQ(json["step"], i);
    EXPECT_EQ(json.contains("val/success_rate"), i % 2 == 0) << i;
    EXPECT_EQ(json.contains("hybrid/kl_coef"), i > 0) << i;
  }
  EXPECT_DOUBLE_EQ(nlohmann::json::parse(lines[1])["hybrid/kl_coef"],
                   1 - 0.9 / 4);
  const LedgerReport report = CheckRun(root_ + "/a").value();
  EXPECT_TRUE(report.ok());
  EXPECT_EQ(report.counts.issued, 6 * 12u);
  EXPECT_EQ(report.counts.consumed, 6 * 12u);
  EXPECT_THAT(Checkpoints("a"),
              testing::IsSupersetOf({"best", "last", "step-6"}));
  for (const char* file :
       {"checkpoints/last/model/model.safetensors",
        "checkpoints/last/model/config.json",
        "checkpoints/last/model/tokenizer.json", "checkpoints/last/ledger.db",
        "evals/panel-000004.jsonl", "spool/train-000001.spool",
        "spool/train-000001.advantages.jsonl"}) {
    EXPECT_TRUE(fs::exists(root_ + "/a/" + file)) << file;
  }
  EXPECT_TRUE(LoadCheckpoint(root_ + "/a/checkpoints/last").ok());
  // Every version that was published, by its identity.
  int kept = 0;
  for (const auto& file : fs::directory_iterator(root_ + "/a/weights")) {
    EXPECT_EQ(weights::ReadSnapshotFile(file.path())->root_hash,
              file.path().stem());
    ++kept;
  }
  EXPECT_EQ(kept, 7);
}

TEST_F(LearnerRunTest, AnInterruptedRunGoesOnToTheSameLines) {
  ASSERT_TRUE(Life(Config("unbroken"), "").Run().ok());
  for (const char* stop_at : {"train 1", "train 4", "eval 0", "eval 4"}) {
    std::string safe = absl::StrCat("broken-", stop_at);
    for (char& c : safe)
      if (c == ' ') c = '-';
    ASSERT_TRUE(Life(Config(safe), "").Run(stop_at).ok()) << stop_at;
    EXPECT_LT(Lines(safe).size(), 7u) << stop_at;
    ASSERT_TRUE(CheckRun(root_ + "/" + safe)->ok());
    ASSERT_TRUE(Life(Config(safe), "latest").Run().ok()) << stop_at;
    EXPECT_EQ(Lines(safe), Lines("unbroken")) << stop_at;
    const LedgerReport report = CheckRun(root_ + "/" + safe).value();
    EXPECT_TRUE(report.ok()) << stop_at;
    EXPECT_EQ(report.counts.consumed, 6 * 12u) << stop_at;
  }
}

TEST_F(LearnerRunTest, TheOrderOfArrivalChangesNoBit) {
  ASSERT_TRUE(Life(Config("in-order"), "").Run().ok());
  for (const uint64_t seed : {1, 2, 3}) {
    const std::string name = absl::StrCat("shuffled-", seed);
    ASSERT_TRUE(Life(Config(name), "").Run("", seed).ok());
    EXPECT_EQ(Lines(name), Lines("in-order"));
    for (const char* file : {"checkpoints/last/model/model.safetensors",
                             "checkpoints/last/optimizer.safetensors"})
      EXPECT_EQ(HashHex(ReadFile(root_ + "/" + name + "/" + file).value()),
                HashHex(ReadFile(root_ + "/in-order/" + file).value()))
          << file;
  }
}

void Fail(v1::Trajectory& t) {
  t.mutable_outcome()->set_done_reason(v1::ERROR);
  t.mutable_outcome()->mutable_error()->set_kind("task");
  t.mutable_outcome()->mutable_error()->set_message(
      absl::StrCat(t.task().task_id(), ": found half a game"));
}

TEST_F(LearnerRunTest, AnErrorIsLeftOutOpenlyAndTheOthersStand) {
  Life life(Config("holes"), "");
  life.spoil = [](v1::Trajectory& t) {
    if (t.purpose() == v1::TRAIN ? t.id().group() == 1 && t.id().sample() == 2
                                 : t.id().group() == 3)
      Fail(t);
  };
  ASSERT_TRUE(life.Run().ok());
  for (const std::string& line : Lines("holes")) {
    const auto step = nlohmann::json::parse(line);
    if (step["step"] > 0) {
      EXPECT_EQ(step["episode/errors"], 1) << line;
      EXPECT_EQ(step["episode/errors_task"], 1) << line;
      EXPECT_EQ(step["episode/errors_prompt"], 0) << line;
      EXPECT_EQ(step["episode/dropped"], 1) << line;
      const double rate = step["episode/success_rate"];
      EXPECT_NEAR(rate * 11, std::round(rate * 11), 1e-9) << "of 11";
    }
    if (!step.contains("val/success_rate")) continue;
    EXPECT_EQ(step["val/tasks"], 4) << line;
    EXPECT_EQ(step["val/errors"], 1) << line;
    const double rate = step["val/success_rate"];
    EXPECT_NEAR(rate * 4, std::round(rate * 4), 1e-9) << "of 4";
  }
  const LedgerReport report = CheckRun(root_ + "/holes").value();
  EXPECT_TRUE(report.ok());
  EXPECT_EQ(report.counts.dropped, 6u);
  EXPECT_EQ(report.counts.consumed, 66u);
  const std::vector<std::string> panel =
      absl::StrSplit(*ReadFile(root_ + "/holes/evals/panel-000004.jsonl"), '\n',
                     absl::SkipEmpty());
  ASSERT_EQ(panel.size(), 5u);
  const auto left_out = nlohmann::json::parse(panel[3]);
  EXPECT_FALSE(left_out.contains("success"));
  EXPECT_THAT(left_out["error"].get<std::string>(),
              testing::HasSubstr("found half a game"));
  const v1::Trajectory kept =
      FindTrajectory(root_ + "/holes", {v1::TRAIN, 1, 1, 2}).value();
  EXPECT_EQ(kept.outcome().error().kind(), "task");
  EXPECT_EQ(kept.id().attempt(), 2u) << "three tries";
}

TEST_F(LearnerRunTest, ATaskThatCannotBeStartedIsSetAsideForTheRun) {
  const auto spoil = [](v1::Trajectory& t) {
    if (t.task().task_id() == "train3" && t.purpose() == v1::TRAIN) Fail(t);
  };
  v1::RunConfig config = Config("aside");
  config.mutable_env()->set_max_error_share(0.4);
  const auto steps_of = [](const Life& life) {
    std::set<uint32_t> steps;
    for (const v1::Lease& lease : life.leases())
      if (lease.task_id() == "train3") steps.insert(lease.step());
    return steps;
  };
  // 24 groups of 12 tasks: it comes twice.
  config.set_steps(8);
  Life life(config, "");
  life.spoil = spoil;
  testing::internal::CaptureStderr();
  ASSERT_TRUE(life.Run().ok());
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::HasSubstr("task train/train3 is set aside for the rest "
                                 "of the run: task: train3: found half a"));
  EXPECT_EQ(steps_of(life).size(), 1u) << "tried in one step only";
  double errors = 0;
  for (const std::string& line : Lines("aside"))
    errors += nlohmann::json::parse(line).value("episode/errors_task", 0.0);
  EXPECT_EQ(errors, 8) << "counted in both";
  const LedgerReport report = CheckRun(root_ + "/aside").value();
  EXPECT_TRUE(report.ok());
  EXPECT_EQ(report.counts.dropped, 8u);

  // A resume knows of it, and records the same.
  config.set_name("aside-too");
  config.mutable_checkpoint()->set_every(1);
  Life first(config, "");
  first.spoil = spoil;
  ASSERT_TRUE(
      first.Run(absl::StrCat("train ", *steps_of(life).begin() + 1)).ok());
  Life second(config, "latest");
  second.spoil = spoil;
  ASSERT_TRUE(second.Run().ok());
  EXPECT_TRUE(steps_of(second).empty());
  EXPECT_EQ(Lines("aside-too"), Lines("aside"));
}

TEST_F(LearnerRunTest, AnErrorThatPassesChangesNoNumber) {
  ASSERT_TRUE(Life(Config("smooth"), "").Run().ok());
  Life rough(Config("rough"), "");
  rough.spoil = [](v1::Trajectory& t) {
    if (t.id().attempt() == 0 && t.id().sample() == 1) Fail(t);
  };
  ASSERT_TRUE(rough.Run().ok());
  EXPECT_EQ(Lines("rough"), Lines("smooth"));
}

TEST_F(LearnerRunTest, TooManyErrorsEndTheRunInTheirWords) {
  Life life(Config("broken"), "");
  life.spoil = [](v1::Trajectory& t) {
    if (t.purpose() == v1::TRAIN && t.id().step() == 2 && t.id().sample() > 1)
      Fail(t);
  };
  const absl::Status status = life.Run();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(testing::HasSubstr("step 2: 6 of 12 episodes"),
                             testing::HasSubstr("env.max_error_share = 0.25"),
                             testing::HasSubstr("found half a game")));
  const LedgerReport report = CheckRun(root_ + "/broken").value();
  EXPECT_TRUE(report.ok());
  EXPECT_EQ(report.counts.dropped, 6u);
}

TEST_F(LearnerRunTest, AnEvaluationOfErrorsEndsTheRun) {
  Life life(Config("blind"), "");
  life.spoil = [](v1::Trajectory& t) {
    if (t.purpose() == v1::EVAL) Fail(t);
  };
  EXPECT_THAT(std::string(life.Run().message()),
              testing::HasSubstr("evaluation after step 0: 5 of 5"));
}

TEST(SkipWatchTest, ARunThatLearnsNothingEndsWithAnError) {
  SkipWatch watch(6);
  EXPECT_TRUE(watch.Add(1, 2, 2).ok()) << "one step may be chance";
  EXPECT_TRUE(watch.Add(2, 2, 2).ok());
  EXPECT_TRUE(watch.Add(3, 1, 2).ok()) << "something was learned";
  EXPECT_TRUE(watch.Add(4, 2, 2).ok());
  EXPECT_TRUE(watch.Add(5, 2, 2).ok());
  EXPECT_THAT(std::string(watch.Add(6, 2, 2).message()),
              testing::HasSubstr("step 6: gradient: found not finite in every "
                                 "update of 3 steps"));
  EXPECT_FALSE(SkipWatch(1).Add(1, 1, 1).ok()) << "all of a short run";
}

TEST_F(LearnerRunTest, TcodLimitsTheTurnsOfTrainingByTheStep) {
  v1::RunConfig config = Config("f2b");
  config.mutable_algorithm()->set_recipe("tcod");
  config.mutable_algorithm()->set_tcod_steps(2);
  config.mutable_env()->set_max_turns(3);
  Life life(config, "");
  ASSERT_TRUE(life.Run().ok());
  const std::vector<uint32_t> limits = {0, 1, 2, 2, 3, 3, 3};
  for (const v1::Lease& lease : life.leases()) {
    EXPECT_EQ(lease.max_turns(),
              lease.purpose() == v1::EVAL ? 3 : limits[lease.step()]);
    EXPECT_EQ(lease.replay_actions_size(), 0);
  }
}

TEST_F(LearnerRunTest, TcodReplaysAPrefixThatBecomesShorter) {
  std::string episodes;
  for (int task = 0; task < 10; ++task)
    absl::StrAppend(&episodes, R"({"split": "train", "content_hash": )",
                    R"("hash of train", "task_id": "train)", task,
                    R"(", "actions": ["a", "b", "c", "d"]})", "\n");
  ASSERT_TRUE(MakeDirs(root_).ok());
  ASSERT_TRUE(WriteFileAtomic(root_ + "/episodes.jsonl", episodes).ok());
  v1::RunConfig config = Config("b2f");
  config.mutable_algorithm()->set_recipe("tcod");
  config.mutable_algorithm()->set_tcod_mode("b2f");
  config.mutable_algorithm()->set_tcod_steps(2);
  EXPECT_THAT(std::string(CheckRecipeInputs(config).message()),
              testing::HasSubstr("env.episodes: found nothing"));
  config.mutable_env()->set_episodes(root_ + "/episodes.jsonl");
  Life life(config, "");
  ASSERT_TRUE(life.Run().ok());
  const std::vector<int> prefix = {0, 3, 2, 2, 1, 1, 0};
  std::set<std::string> without;
  for (const v1::Lease& lease : life.leases()) {
    const bool stored =
        lease.purpose() == v1::TRAIN && lease.task_id().size() == 6;
    EXPECT_EQ(lease.replay_actions_size(), stored ? prefix[lease.step()] : 0)
        << lease.task_id();
    if (!stored && lease.purpose() == v1::TRAIN)
      without.insert(lease.task_id());
  }
  EXPECT_THAT(without, testing::ElementsAre("train10", "train11"));
}

TEST_F(LearnerRunTest, WhatARecipeNeedsIsAskedForBeforeTheRun) {
  const auto refusal = [&](const std::function<void(v1::RunConfig&)>& change) {
    v1::RunConfig config = Config("inputs");
    change(config);
    return std::string(CheckRecipeInputs(config).message());
  };
  EXPECT_EQ(refusal([](v1::RunConfig&) {}), "");
  EXPECT_THAT(refusal([](v1::RunConfig& c) { c.clear_teachers(); }),
              testing::HasSubstr("teachers: found none"));
  EXPECT_THAT(refusal([](v1::RunConfig& c) {
                c.mutable_algorithm()->set_recipe("sdar");
              }),
              testing::HasSubstr("env.skills: found nothing"));
  EXPECT_THAT(refusal([](v1::RunConfig& c) {
                c.mutable_algorithm()->set_recipe("tcod");
                c.mutable_algorithm()->set_tcod_mode("b2f");
                c.mutable_env()->set_episodes("/none.jsonl");
              }),
              testing::HasSubstr("env.episodes: found no file /none.jsonl"));
  EXPECT_THAT(refusal([](v1::RunConfig& c) {
                c.mutable_optimizer()->set_updates_per_step(13);
              }),
              testing::HasSubstr("updates_per_step: found 13, expected at most "
                                 "12"));
}

TEST_F(LearnerRunTest, SdarGivesTrainingTheSkillsOfItsTaskType) {
  ASSERT_TRUE(MakeDirs(root_).ok());
  ASSERT_TRUE(
      WriteFileAtomic(root_ + "/skills.json",
                      R"({"skills": [{"category": "heat", "text": "warm"},
                                     {"category": "pick", "text": "take"}]})")
          .ok());
  v1::RunConfig config = Config("sdar");
  config.mutable_algorithm()->set_recipe("sdar");
  config.mutable_env()->set_skills(root_ + "/skills.json");
  Life life(config, "");
  ASSERT_TRUE(life.Run().ok());
  for (const v1::Lease& lease : life.leases()) {
    const bool heat = (lease.task_id().back() - '0') % 2 == 1;
    EXPECT_EQ(lease.context(), lease.purpose() == v1::EVAL ? ""
                               : heat                      ? "warm"
                                                           : "take");
  }
  const auto last = nlohmann::json::parse(Lines("sdar").back());
  EXPECT_TRUE(last.contains("actor/sdar_loss"));
}

TEST_F(LearnerRunTest, AnEarlierCheckpointCanBeGoneOnFrom) {
  ASSERT_TRUE(Life(Config("again"), "").Run().ok());
  const std::vector<std::string> lines = Lines("again");
  std::string earlier;
  for (const std::string& name : Checkpoints("again"))
    if (name.rfind("step-", 0) == 0 && name != "step-6") earlier = name;
  ASSERT_FALSE(earlier.empty());
  ASSERT_TRUE(Life(Config("again"), root_ + "/again/checkpoints/" + earlier)
                  .Run()
                  .ok());
  EXPECT_EQ(Lines("again"), lines);
  EXPECT_TRUE(CheckRun(root_ + "/again")->ok());
}

TEST_F(LearnerRunTest, AForkGoesOnAsTheRunItCameFrom) {
  ASSERT_TRUE(Life(Config("parent"), "").Run("train 5").ok());
  ASSERT_TRUE(
      ForkRun(ParseFork("parent@4", root_).value(), root_ + "/fork").ok());
  ASSERT_TRUE(Life(Config("fork"), "latest").Run("train 6").ok());
  ASSERT_TRUE(Life(Config("fork"), "latest").Run().ok());
  ASSERT_TRUE(Life(Config("parent"), "latest").Run().ok());
  EXPECT_EQ(Lines("fork"), Lines("parent"));
  const std::string model = "/checkpoints/last/model/model.safetensors";
  EXPECT_EQ(ReadFile(root_ + "/fork" + model).value(),
            ReadFile(root_ + "/parent" + model).value());
  // A lineage of its own: the steps up to the fork are the parent's.
  const LedgerReport report = CheckRun(root_ + "/fork").value();
  EXPECT_TRUE(report.ok());
  EXPECT_EQ(report.forked_from, root_ + "/parent@4");
  EXPECT_EQ(report.counts.consumed, 2 * 12u);
  EXPECT_EQ(CheckRun(root_ + "/parent")->counts.consumed, 6 * 12u);
}

TEST_F(LearnerRunTest, AnotherTeacherIsRefused) {
  ASSERT_TRUE(Life(Config("teacher"), "").Run("train 4").ok());
  Life life(Config("teacher"), "latest");
  life.teacher_hash = "other weights";
  EXPECT_THAT(life.Run().message(),
              testing::HasSubstr("weights_hash of teacher teacher: found other "
                                 "weights, expected weights of the teacher"));
}

TEST_F(LearnerRunTest, ACheckpointWhoseReplacementDiedIsPutBack) {
  ASSERT_TRUE(Life(Config("moved"), "").Run().ok());
  const std::string folder = root_ + "/moved/checkpoints";
  fs::rename(folder + "/step-6", folder + "/.step-6.old");
  fs::create_directories(folder + "/.step-6.part/model");
  TidyCheckpoints(root_ + "/moved");
  EXPECT_EQ(FindCheckpoint(root_ + "/moved", "latest").value(),
            folder + "/step-6");
  EXPECT_FALSE(fs::exists(folder + "/.step-6.part"));
}

TEST_F(LearnerRunTest, LatestPassesOverADamagedCheckpointAndAFolderDoesNot) {
  v1::RunConfig config = Config("hurt");
  config.mutable_checkpoint()->set_keep(3);
  config.mutable_checkpoint()->set_every(1);
  ASSERT_TRUE(Life(config, "").Run().ok());
  const std::string run = root_ + "/hurt", folder = run + "/checkpoints";
  const auto latest = [&] { return OpenCheckpoint(run, "latest"); };
  EXPECT_EQ(latest()->state.step, 6u);
  // Cut short, a bit flipped, a file gone: each time the one before it is used.
  fs::resize_file(folder + "/step-6/optimizer.safetensors", 100);
  testing::internal::CaptureStderr();
  EXPECT_EQ(latest()->state.step, 5u);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, testing::HasSubstr("step-6"));
  EXPECT_THAT(log, testing::HasSubstr("optimizer.safetensors"));
  EXPECT_THAT(log, testing::HasSubstr("going on after step 5"));
  std::string state = ReadFile(folder + "/step-5/state.json").value();
  state[state.size() / 2] ^= 1;
  ASSERT_TRUE(WriteFileAtomic(folder + "/step-5/state.json", state).ok());
  EXPECT_EQ(latest()->state.step, 4u);
  const absl::Status chosen = OpenCheckpoint(run, folder + "/step-5").status();
  EXPECT_TRUE(absl::IsInvalidArgument(chosen));
  EXPECT_THAT(std::string(chosen.message()),
              testing::AllOf(testing::HasSubstr("step-5/state.json"),
                             testing::HasSubstr("--resume latest")));
  // What was trained after the whole one is superseded, and trained again.
  const std::vector<std::string> lines = Lines("hurt");
  ASSERT_TRUE(Life(config, folder + "/step-4").Run().ok());
  EXPECT_EQ(Lines("hurt"), lines);
  EXPECT_TRUE(CheckRun(run)->ok());
  EXPECT_EQ(latest()->state.step, 6u);
  for (const std::string& name : Checkpoints("hurt"))
    if (name.starts_with("step-"))
      fs::remove(folder + "/" + name + "/model/model.safetensors");
  EXPECT_TRUE(absl::IsInvalidArgument(latest().status()))
      << "never from the beginning";
  fs::remove_all(folder);
  EXPECT_EQ(latest()->dir, "") << "nothing to go on from";
}

TEST_F(LearnerRunTest, ADamagedCheckpointIsRefusedByFile) {
  ASSERT_TRUE(Life(Config("damaged"), "").Run().ok());
  const std::string file =
      root_ + "/damaged/checkpoints/last/optimizer.safetensors";
  std::string bytes = ReadFile(file).value();
  bytes.back() ^= 1;
  ASSERT_TRUE(WriteFileAtomic(file, bytes).ok());
  EXPECT_THAT(
      LoadCheckpoint(root_ + "/damaged/checkpoints/last").status().message(),
      testing::HasSubstr("optimizer.safetensors"));
  // A file that the manifest does not vouch for may be damaged unseen.
  const std::string manifest =
      root_ + "/damaged/checkpoints/last/MANIFEST.json";
  nlohmann::json json = nlohmann::json::parse(ReadFile(manifest).value());
  for (auto entry = json["files"].begin(); entry != json["files"].end();)
    entry = (*entry)["path"] == "optimizer.safetensors"
                ? json["files"].erase(entry)
                : entry + 1;
  for (const auto& files : {json["files"], nlohmann::json::array()}) {
    ASSERT_TRUE(
        WriteFileAtomic(manifest, nlohmann::json{{"files", files}}.dump())
            .ok());
    const absl::Status refused =
        LoadCheckpoint(root_ + "/damaged/checkpoints/last").status();
    EXPECT_TRUE(absl::IsInvalidArgument(refused));
    EXPECT_THAT(
        std::string(refused.message()),
        testing::HasSubstr(files.empty() ? "MANIFEST.json: files: found []"
                                         : "found no optimizer.safetensors"));
  }
  EXPECT_FALSE(FindCheckpoint(root_ + "/damaged", root_ + "/nothing").ok());
  EXPECT_EQ(FindCheckpoint(root_ + "/none", "latest").value(), "");
}

}  // namespace
}  // namespace atod::learner
