#include "services/learner/policy_trainer.h"

#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <set>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/file.h"
#include "common/base/rng.h"
#include "common/model/model_files.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/recipe_for_test.h"

namespace atod::learner {
namespace {

constexpr int kVocab = 50;

// A small model with random weights, saved in a folder of its own.
std::string ModelDir(uint64_t seed, int vocab, int hidden, int intermediate,
                     int head_dim, bool tied) {
  const std::string dir =
      absl::StrCat(testing::TempDir(), "policy_trainer_model_", seed, "_",
                   vocab, "_", hidden);
  model::ModelConfig config;
  config.vocab_size = vocab;
  config.hidden_size = hidden;
  config.intermediate_size = intermediate;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 2;
  config.num_key_value_heads = 1;
  config.head_dim = head_dim;
  config.max_position_embeddings = 128;
  config.tie_word_embeddings = tied;
  EXPECT_TRUE(model::CreateModel(config, "unit", seed, dir).ok());
  return dir;
}

std::string ModelDir(uint64_t seed) {
  return ModelDir(seed, kVocab, 16, 32, 16, /*tied=*/true);
}

// Windowed trajectories of random tokens; in each group the even ones win.
StepData MakeData(int groups, int group_size, uint64_t seed) {
  Rng rng(seed);
  StepData data;
  StepBatch& b = data.batch;
  for (int g = 0; g < groups; ++g) {
    for (int s = 0; s < group_size; ++s) {
      const int row = b.num_trajectories();
      b.trajectory_id.push_back(std::to_string(g) + "/" + std::to_string(s));
      b.group.push_back(g);
      b.reward.push_back(s % 2 == 0 ? 10 : 0);
      const int turns = 3 + rng.Below(3);
      for (int k = 0; k < turns; ++k) {
        TrainSequence sequence;
        sequence.trajectory = row;
        const uint32_t prompt = 4 + rng.Below(8), length = 1 + rng.Below(5);
        for (uint32_t t = 0; t < prompt + length; ++t)
          sequence.tokens.push_back(rng.Below(kVocab));
        sequence.spans = {{prompt, length, b.token_begin.back()}};
        data.sequences.push_back(std::move(sequence));
        b.turn_index.push_back(k);
        b.valid_action.push_back(1);
        b.token_begin.push_back(b.token_begin.back() + length);
      }
      b.turn_begin.push_back(b.num_turns());
    }
  }
  return data;
}

// With log-probs of no model.
StepData MakeScoredData(int groups, int group_size) {
  StepData data = MakeData(groups, group_size, 1);
  Rng rng(2);
  for (int t = 0; t < data.batch.num_tokens(); ++t) {
    data.batch.rollout_logprob.push_back(-rng.Uniform());
    data.batch.teacher_logprob.push_back(-rng.Uniform());
  }
  return data;
}

class PolicyTrainerTest : public testing::Test {
 protected:
  PolicyTrainerTest() : communicator_(MakeLocalCommunicator()) {
    device_ = OpenDevice("cpu").value();
    options_.grad_clip = 1;
  }

  std::unique_ptr<PolicyTrainer> Load(const std::string& dir) {
    options_.recipe = RecipeFor(settings_);
    auto trainer =
        PolicyTrainer::Load(dir, options_, communicator_.get(), device_.get());
    EXPECT_TRUE(trainer.ok()) << trainer.status();
    return *std::move(trainer);
  }

  // With the recipe that was loaded last.
  StepSettings At(uint32_t step, double lr) const {
    return {.step = step,
            .lr = lr,
            .coefficients = options_.recipe.At(static_cast<int>(step) - 1 +
                                               options_.recipe.first_step)};
  }

  // What `steps` steps leave, to the bit: metrics, moments and weights.
  std::string Traces(PolicyTrainer& student, StepData& data, uint32_t steps,
                     double lr) const {
    std::string out;
    for (uint32_t step = 1; step <= steps; ++step) {
      const auto trained = student.TrainStep(At(step, lr), data);
      EXPECT_TRUE(trained.ok()) << trained.status();
      for (const auto& [tag, value] : trained->metrics)
        if (!tag.starts_with("timing/"))
          absl::StrAppend(&out, tag, absl::StrFormat(" %a\n", value));
    }
    const std::string moments =
        absl::StrCat(testing::TempDir(), "policy_trainer_moments_", getpid());
    EXPECT_TRUE(student.SaveOptimizer(moments).ok());
    absl::StrAppend(&out, HashHex(ReadFile(moments).value()), "\n",
                    student.Export()->root_hash, "\n");
    std::filesystem::remove(moments);
    return out;
  }

  // Rollout log-probs are the student's own, the teacher's come from a model.
  StepData Scored(PolicyTrainer& student, PolicyTrainer& teacher,
                  uint64_t seed = 1) {
    StepData data = MakeData(3, 4, seed);
    data.batch.rollout_logprob = student.Score(data, nullptr).value();
    data.batch.teacher_logprob = teacher.Score(data, nullptr).value();
    return data;
  }

  std::unique_ptr<Communicator> communicator_;
  std::unique_ptr<DeviceBackend> device_;
  PolicyTrainerOptions options_;
  Settings settings_;  // of options_.recipe
};

std::vector<float> Floats(const weights::WeightSnapshot& snapshot) {
  std::vector<float> out(snapshot.data.size() / sizeof(float));
  std::memcpy(out.data(), snapshot.data.data(), out.size() * sizeof(float));
  return out;
}

double LargestDifference(PolicyTrainer& a, PolicyTrainer& b) {
  const std::vector<float> x = Floats(a.Export().value());
  const std::vector<float> y = Floats(b.Export().value());
  double largest = 0;
  for (size_t i = 0; i < x.size(); ++i)
    largest = std::max(largest, std::abs(double{x[i]} - y[i]));
  return largest;
}

TEST_F(PolicyTrainerTest, ATeacherThatIsTheStudentGivesNoSignal) {
  settings_["recipe"] = "opd";
  const std::string dir = ModelDir(1);
  auto student = Load(dir), teacher = Load(dir);
  StepData data = Scored(*student, *teacher);
  const auto trained = student->TrainStep(At(1, 1e-3), data);
  ASSERT_TRUE(trained.ok()) << trained.status();
  EXPECT_LT(trained->metrics.at("hybrid/teacher_gap_abs_mean"), 1e-5);
  EXPECT_LT(trained->metrics.at("actor/grad_norm"), 1e-5);
  EXPECT_LT(trained->metrics.at("rollout/mismatch_abs_max"), 1e-5);
}

TEST_F(PolicyTrainerTest, TheCoefficientsAreTheStepsAndNotTheSchedules) {
  auto student = Load(ModelDir(1)), teacher = Load(ModelDir(2));
  StepData data = Scored(*student, *teacher);
  StepSettings settings = At(1, 1e-3);
  settings.coefficients.kl = 0.125;
  settings.coefficients.rl = 0.25;
  const auto trained = student->TrainStep(settings, data);
  ASSERT_TRUE(trained.ok()) << trained.status();
  EXPECT_EQ(trained->metrics.at("hybrid/kl_coef"), 0.125);
  EXPECT_EQ(trained->advantages.rl_coef, 0.25);
}

TEST_F(PolicyTrainerTest, AnotherTeacherChangesTheGradient) {
  settings_["recipe"] = "opd";
  const std::string dir = ModelDir(1);
  auto a = Load(dir), b = Load(dir);
  auto teacher_a = Load(ModelDir(2)), teacher_b = Load(ModelDir(3));
  StepData data_a = Scored(*a, *teacher_a), data_b = Scored(*b, *teacher_b);
  const auto ra = a->TrainStep(At(1, 1e-3), data_a);
  const auto rb = b->TrainStep(At(1, 1e-3), data_b);
  ASSERT_TRUE(ra.ok() && rb.ok());
  EXPECT_GT(ra->metrics.at("hybrid/teacher_gap_abs_mean"), 0.1);
  EXPECT_GT(ra->metrics.at("actor/grad_norm"), 1e-3);
  EXPECT_GT(LargestDifference(*a, *b), 1e-4);
}

TEST_F(PolicyTrainerTest, WinnersBecomeLikelierAndLosersRarer) {
  settings_["recipe"] = "grpo";
  auto student = Load(ModelDir(1)), teacher = Load(ModelDir(2));
  StepData data = Scored(*student, *teacher);
  const auto gap = [&] {
    const std::vector<double> lp = student->Score(data, nullptr).value();
    double out = 0;
    const StepBatch& b = data.batch;
    for (int i = 0; i < b.num_trajectories(); ++i)
      for (int t = b.token_begin[b.turn_begin[i]];
           t < b.token_begin[b.turn_begin[i + 1]]; ++t)
        out += (b.reward[i] > 0 ? 1 : -1) * lp[t];
    return out;
  };
  const double before = gap();
  for (int step = 1; step <= 5; ++step)
    ASSERT_TRUE(student->TrainStep(At(step, 1e-3), data).ok());
  EXPECT_GT(gap(), before + 1);
}

TEST_F(PolicyTrainerTest, OpdPullsTheStudentTowardsTheTeacher) {
  settings_["recipe"] = "opd";
  auto student = Load(ModelDir(1)), teacher = Load(ModelDir(2));
  StepData data = Scored(*student, *teacher);
  double first = 0, last = 0;
  for (int step = 1; step <= 20; ++step) {
    const auto trained = student->TrainStep(At(step, 3e-3), data);
    ASSERT_TRUE(trained.ok());
    last = trained->metrics.at("hybrid/teacher_gap_abs_mean");
    if (step == 1) first = last;
  }
  EXPECT_LT(last, 0.8 * first);
}

TEST_F(PolicyTrainerTest, TheSplitIntoMicroBatchesChangesNothing) {
  for (const char* aggregation :
       {"trajectory", "token", "trajectory_turn", "micro_batch"}) {
    settings_["aggregation"] = aggregation;
    options_.updates_per_step = 2;
    const std::string dir = ModelDir(1);
    auto teacher = Load(ModelDir(2));
    options_.micro_batch_tokens = 1 << 20;
    auto whole = Load(dir);
    options_.micro_batch_tokens = 16;
    auto pieces = Load(dir);
    StepData a = Scored(*whole, *teacher), b = Scored(*pieces, *teacher);
    const auto ra = whole->TrainStep(At(1, 1e-3), a);
    const auto rb = pieces->TrainStep(At(1, 1e-3), b);
    ASSERT_TRUE(ra.ok() && rb.ok());
    EXPECT_NEAR(ra->metrics.at("actor/pg_loss"),
                rb->metrics.at("actor/pg_loss"), 1e-6);
    EXPECT_NEAR(ra->metrics.at("actor/grad_norm"),
                rb->metrics.at("actor/grad_norm"), 1e-5);
    // AdamW's first updates are nearly sign(gradient) * lr: only where the
    // gradient is noise may a weight go another way.
    const std::vector<float> x = Floats(whole->Export().value());
    const std::vector<float> y = Floats(pieces->Export().value());
    int apart = 0;
    for (size_t i = 0; i < x.size(); ++i)
      apart += std::abs(x[i] - y[i]) > 1e-5f;
    EXPECT_LT(apart, static_cast<int>(x.size() / 100));
  }
}

TEST_F(PolicyTrainerTest, AStepCanBeRepeatedToTheBit) {
  options_.updates_per_step = 3;
  const std::string dir = ModelDir(1);
  auto teacher = Load(ModelDir(2)), a = Load(dir), b = Load(dir);
  StepData data_a = Scored(*a, *teacher), data_b = Scored(*b, *teacher);
  ASSERT_TRUE(a->TrainStep(At(1, 1e-3), data_a).ok());
  ASSERT_TRUE(b->TrainStep(At(1, 1e-3), data_b).ok());
  EXPECT_EQ(a->Export()->root_hash, b->Export()->root_hash);
}

// Large enough that torch would split sums and updates over the threads: the
// embedding alone has 64,000 elements.
TEST_F(PolicyTrainerTest, ThreadsChangeNoBitOfWeightsMomentsAndMetrics) {
  const std::string dir = ModelDir(1, 1000, 64, 96, 16, /*tied=*/false);
  options_.updates_per_step = 2;
  options_.grad_clip = 1e-3;  // clips: the norm enters the weights
  options_.weight_decay = 0.01;
  const auto train = [&](int threads) {
    at::set_num_threads(threads);
    auto student = Load(dir);
    StepData data = MakeScoredData(8, 8);
    return Traces(*student, data, 3, 1e-3);
  };
  const std::string one = train(1);
  EXPECT_EQ(one, train(2));
  EXPECT_EQ(one, train(3));
  at::set_num_threads(1);
}

// Torch and MKL choose their code by the CPU and by these variables, which make
// one machine stand for others.
class DispatchTest : public PolicyTrainerTest,
                     public testing::WithParamInterface<const char*> {
 protected:
  // Hashes of weights and moments, and the metrics, after steps in which every
  // operation of an update counts: ratios that are not 1, a clip of the
  // gradient, decay, and all losses.
  std::string Train() {
    const std::string dir = ModelDir(1, 203, 32, 48, 16, /*tied=*/false);
    options_.updates_per_step = 3;
    options_.grad_clip = 1e-2;
    options_.weight_decay = 0.01;
    options_.reference_dir = dir;
    settings_["kl_loss_coef"] = 0.1;
    settings_["entropy_coef"] = 0.01;
    settings_["importance_cap"] = 2;
    std::string seen;
    for (const char* recipe : {"atod", "sdar"}) {
      for (const char* level : {"token", "turn"}) {
        settings_["recipe"] = recipe;
        settings_["ratio_level"] = level;
        auto student = Load(dir);
        StepData data = MakeScoredData(8, 4);
        data.context_sequences = data.sequences;
        for (TrainSequence& s : data.context_sequences) s.tokens[0] ^= 1;
        seen += Traces(*student, data, 2, 1e-2);
      }
    }
    std::filesystem::remove_all(dir);
    return seen;
  }
};

constexpr char kResultFile[] = "ATOD_DISPATCH_RESULT";

TEST_P(DispatchTest, AStepIsTheSameToTheBit) {
  if (const char* path = std::getenv(kResultFile)) {  // the child
    ASSERT_TRUE(WriteFileAtomic(path, Train()).ok());
    return;
  }
  const std::string path =
      absl::StrCat(testing::TempDir(), "dispatch_result_", getpid());
  // This same test, in a process that starts with the variable.
  const std::string self = std::filesystem::read_symlink("/proc/self/exe");
  const std::string name =
      testing::UnitTest::GetInstance()->current_test_info()->name();
  ASSERT_EQ(std::system(absl::StrCat("env ", kResultFile, "='", path, "' ",
                                     GetParam(), " '", self,
                                     "' --gtest_filter='*DispatchTest.", name,
                                     "' >/dev/null")
                            .c_str()),
            0);
  const std::string there = ReadFile(path).value();
  EXPECT_THAT(there, testing::HasSubstr("actor/sdar_loss"));
  EXPECT_EQ(there, Train());
}

INSTANTIATE_TEST_SUITE_P(AsOnAnotherCpu, DispatchTest,
                         testing::Values("MKL_CBWR=COMPATIBLE", "MKL_CBWR=AVX2",
                                         "ATEN_CPU_CAPABILITY=avx2",
                                         "ATEN_CPU_CAPABILITY=default",
                                         "OMP_NUM_THREADS=2"));

TEST_F(PolicyTrainerTest, FreeModeAgreesWithinTolerancesOnly) {
  // A shape that the kernels fit.
  const std::string dir = ModelDir(1, kVocab, 32, 48, 16, /*tied=*/false);
  auto own = Load(dir);
  options_.deterministic = false;
  auto torch = Load(dir);
  const StepData data = MakeData(3, 4, 1);
  const std::vector<double> a = own->Score(data, nullptr).value();
  const std::vector<double> b = torch->Score(data, nullptr).value();
  EXPECT_NE(a, b) << "both ran on the same operations";
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5);
}

TEST_F(PolicyTrainerTest, ASavedTrainerGoesOnToTheBit) {
  options_.updates_per_step = 2;
  const std::string dir = testing::TempDir() + "policy_trainer_saved";
  std::filesystem::remove_all(dir);
  ASSERT_TRUE(MakeDirs(dir).ok());
  auto teacher = Load(ModelDir(2)), unbroken = Load(ModelDir(1));
  StepData first = Scored(*unbroken, *teacher, 1);
  ASSERT_TRUE(unbroken->TrainStep(At(1, 1e-3), first).ok());
  ASSERT_TRUE(unbroken->SaveModel(dir + "/model").ok());
  ASSERT_TRUE(unbroken->SaveOptimizer(dir + "/optimizer.safetensors").ok());
  auto resumed = Load(dir + "/model");
  ASSERT_TRUE(resumed->LoadOptimizer(dir + "/optimizer.safetensors").ok());
  StepData a = Scored(*unbroken, *teacher, 2),
           b = Scored(*resumed, *teacher, 2);
  const auto ra = unbroken->TrainStep(At(2, 1e-3), a);
  const auto rb = resumed->TrainStep(At(2, 1e-3), b);
  ASSERT_TRUE(ra.ok() && rb.ok());
  EXPECT_EQ(unbroken->Export()->root_hash, resumed->Export()->root_hash);
  for (const char* tag : {"actor/pg_loss", "actor/grad_norm", "actor/entropy"})
    EXPECT_EQ(ra->metrics.at(tag), rb->metrics.at(tag)) << tag;
}

TEST_F(PolicyTrainerTest, AnotherModelsOptimiserIsRefusedByTensorName) {
  const std::string path = testing::TempDir() + "policy_trainer_bad";
  ASSERT_TRUE(Load(ModelDir(1))->SaveModel(path).ok());
  EXPECT_THAT(
      Load(ModelDir(1))->LoadOptimizer(path + "/model.safetensors").message(),
      testing::HasSubstr("updates"));
  EXPECT_FALSE(Load(ModelDir(1))->LoadOptimizer("/nonexistent").ok());
}

TEST_F(PolicyTrainerTest, RolloutLogProbsCanServeAsOldOnes) {
  options_.recompute_old = false;
  auto student = Load(ModelDir(1)), teacher = Load(ModelDir(2));
  StepData data = Scored(*student, *teacher);
  for (double& x : data.batch.rollout_logprob) x -= .1;
  const auto trained = student->TrainStep(At(1, 1e-3), data);
  ASSERT_TRUE(trained.ok());
  EXPECT_EQ(data.batch.old_logprob, data.batch.rollout_logprob);
  EXPECT_GT(trained->metrics.at("actor/entropy"), 0);
  EXPECT_NEAR(trained->metrics.at("rollout/mismatch_abs_max"), .1, 1e-5);
  EXPECT_NEAR(trained->metrics.at("actor/ratio_max"), std::exp(.1), 1e-4);
}

TEST_F(PolicyTrainerTest, RecomputedOldLogProbsAreNotTheRollouts) {
  auto student = Load(ModelDir(1)), teacher = Load(ModelDir(2));
  StepData data = Scored(*student, *teacher);
  const std::vector<double> own = data.batch.rollout_logprob;
  for (double& x : data.batch.rollout_logprob) x -= .1;
  const auto trained = student->TrainStep(At(1, 1e-3), data);
  ASSERT_TRUE(trained.ok());
  EXPECT_EQ(data.batch.old_logprob, own);
  EXPECT_NEAR(trained->metrics.at("actor/ratio_max"), 1, 1e-5);
}

// The losses beside the surrogate do not know the importance weight.
TEST_F(PolicyTrainerTest, ImportanceWeightsAreOnTheSurrogateAlone) {
  settings_["recipe"] = "opd";
  settings_["kl_loss_coef"] = 1;
  options_.reference_dir = ModelDir(3);
  const auto losses = [&](double cap) {
    settings_["importance_cap"] = cap;
    auto student = Load(ModelDir(1)), teacher = Load(ModelDir(2));
    StepData data = Scored(*student, *teacher);
    for (double& x : data.batch.rollout_logprob) x -= std::log(1.5);
    const auto trained = student->TrainStep(At(1, 1e-3), data);
    EXPECT_TRUE(trained.ok());
    return std::pair(trained->metrics.at("actor/pg_loss"),
                     trained->metrics.at("actor/kl_loss"));
  };
  const auto [plain, plain_kl] = losses(0);
  const auto [weighted, weighted_kl] = losses(2);  // every weight is 1.5
  EXPECT_NEAR(weighted, 1.5 * plain, 1e-4 * std::abs(plain));
  EXPECT_EQ(weighted_kl, plain_kl);
  const auto [capped, capped_kl] = losses(1.2);
  EXPECT_NEAR(capped, 1.2 * plain, 1e-4 * std::abs(plain));
}

TEST_F(PolicyTrainerTest, TheEntropyBonusRaisesTheEntropy) {
  settings_["recipe"] = "grpo";
  const auto entropy_after = [&](double coefficient) {
    settings_["entropy_coef"] = coefficient;
    auto student = Load(ModelDir(1)), teacher = Load(ModelDir(2));
    StepData data = Scored(*student, *teacher);
    for (double& reward : data.batch.reward) reward = 0;  // nothing else moves
    for (int step = 1; step <= 5; ++step)
      EXPECT_TRUE(student->TrainStep(At(step, 1e-3), data).ok());
    double entropy = 0;
    EXPECT_TRUE(student->Score(data, &entropy).ok());
    return entropy;
  };
  EXPECT_GT(entropy_after(1), entropy_after(0) + 1e-3);
}

TEST_F(PolicyTrainerTest, KlToTheReferenceHoldsThePolicyThere) {
  settings_["recipe"] = "opd";
  const auto distance_after = [&](double coefficient) {
    settings_["kl_loss_coef"] = coefficient;
    options_.reference_dir = ModelDir(1);
    auto student = Load(ModelDir(1)), teacher = Load(ModelDir(2)),
         start = Load(ModelDir(1));
    StepData data = Scored(*student, *teacher);
    for (int step = 1; step <= 10; ++step) {
      const auto trained = student->TrainStep(At(step, 1e-3), data);
      EXPECT_TRUE(trained.ok()) << trained.status();
      EXPECT_EQ(trained->metrics.contains("actor/kl_loss"), coefficient > 0);
    }
    const auto now = student->Score(data, nullptr).value();
    const auto then = start->Score(data, nullptr).value();
    double sum = 0;
    for (size_t t = 0; t < now.size(); ++t) sum += std::abs(now[t] - then[t]);
    return sum / now.size();
  };
  EXPECT_LT(distance_after(10), 0.5 * distance_after(0));
}

// The context is the prompt with other words before it.
TEST_F(PolicyTrainerTest, SdarFollowsTheContextUnlessBetaIsZero) {
  settings_["recipe"] = "sdar";
  settings_["sdar_lambda"] = 1;
  const auto after = [&](double beta, uint64_t words) {
    settings_["sdar_beta"] = beta;
    auto student = Load(ModelDir(1)), teacher = Load(ModelDir(2));
    StepData data = Scored(*student, *teacher);
    for (double& reward : data.batch.reward) reward = 0;
    Rng rng(words);
    for (const TrainSequence& s : data.sequences) {
      TrainSequence context = s;
      for (int i = 0; i < 6; ++i)
        context.tokens.insert(context.tokens.begin(), rng.Below(kVocab));
      for (TrainSpan& span : context.spans) span.begin += 6;
      data.context_sequences.push_back(std::move(context));
    }
    const auto trained = student->TrainStep(At(1, 1e-3), data);
    EXPECT_TRUE(trained.ok()) << trained.status();
    EXPECT_GT(trained->metrics.at("actor/grad_norm"), 0);
    return student->Export()->root_hash;
  };
  EXPECT_EQ(after(0, 1), after(0, 2));
  EXPECT_NE(after(5, 1), after(5, 2));
  auto student = Load(ModelDir(1)), teacher = Load(ModelDir(2));
  StepData data = Scored(*student, *teacher);
  EXPECT_THAT(
      std::string(student->TrainStep(At(1, 1e-3), data).status().message()),
      testing::HasSubstr("alternative contexts: found 0 tokens"));
}

TEST_F(PolicyTrainerTest, DuplicatedRowsAreTrainedTwice) {
  settings_["aggregation"] = "turn";
  settings_["recipe"] = "opd";
  auto plain = Load(ModelDir(1)), teacher = Load(ModelDir(2));
  StepData once = Scored(*plain, *teacher);
  const int turns = once.batch.num_turns();
  settings_["duplicate_rows_to"] = 2 * turns;  // every turn once more
  auto padded = Load(ModelDir(1));
  StepData twice = Scored(*padded, *teacher);
  const auto a = plain->TrainStep(At(1, 1e-3), once);
  const auto b = padded->TrainStep(At(1, 1e-3), twice);
  ASSERT_TRUE(a.ok() && b.ok()) << b.status();
  EXPECT_EQ(twice.batch.num_turns(), 2 * turns);
  EXPECT_EQ(twice.sequences.size(), 2 * once.sequences.size());
  // Twice all is all; the mean over turns stays.
  for (const char* tag : {"actor/pg_loss", "actor/grad_norm"})
    EXPECT_NEAR(b->metrics.at(tag), a->metrics.at(tag), 1e-5) << tag;
  // One copy fewer leaves one turn at half the weight of the others.
  settings_["duplicate_rows_to"] = 2 * turns - 1;
  auto most = Load(ModelDir(1));
  StepData nearly = Scored(*most, *teacher);
  const auto c = most->TrainStep(At(1, 1e-3), nearly);
  ASSERT_TRUE(c.ok()) << c.status();
  EXPECT_EQ(nearly.batch.num_turns(), 2 * turns - 1);
  EXPECT_GT(
      std::abs(c->metrics.at("actor/pg_loss") - a->metrics.at("actor/pg_loss")),
      1e-5);
}

TEST_F(PolicyTrainerTest, EveryRecipeAndProfileTrainsAStep) {
  for (const char* profile : {"paper", "default", "released"}) {
    for (const char* recipe :
         {"atod", "sod", "tcod", "atod_token", "atod_token_fair", "atod_one",
          "atod_one_matched"}) {
      for (const char* delta : {"old", "current"}) {
        settings_["recipe"] = recipe;
        settings_["profile"] = profile;
        settings_["delta_student"] = delta;
        options_.updates_per_step = 2;
        auto student = Load(ModelDir(1)), teacher = Load(ModelDir(2));
        StepData data = Scored(*student, *teacher);
        const auto trained = student->TrainStep(At(1, 1e-3), data);
        ASSERT_TRUE(trained.ok()) << recipe << ": " << trained.status();
        EXPECT_EQ(trained->metrics.at("actor/skipped_updates"), 0);
        EXPECT_GT(trained->metrics.at("actor/grad_norm"), 0);
      }
    }
  }
}

// One update: old and current are the same policy.
TEST_F(PolicyTrainerTest, AtTheFirstUpdateTheCurrentStudentIsTheOldOne) {
  const auto norm = [&](const char* delta) {
    settings_["delta_student"] = delta;
    auto student = Load(ModelDir(1)), teacher = Load(ModelDir(2));
    StepData data = Scored(*student, *teacher);
    return student->TrainStep(At(1, 1e-3), data)->metrics.at("actor/grad_norm");
  };
  EXPECT_NEAR(norm("old"), norm("current"), 1e-5);
}

// With the rollout's log-probs as old ones the policy under update is another
// from the start, and so is Delta.
TEST_F(PolicyTrainerTest, TheCurrentStudentsDeltaIsThatOfTheMoment) {
  settings_["recipe"] = "opd";
  options_.recompute_old = false;
  const auto loss = [&](const char* delta, double shift) {
    settings_["delta_student"] = delta;
    auto student = Load(ModelDir(1)), teacher = Load(ModelDir(2));
    StepData data = Scored(*student, *teacher);
    for (double& x : data.batch.rollout_logprob) x += shift;
    return student->TrainStep(At(1, 1e-3), data)->metrics.at("actor/pg_loss");
  };
  // The ratio exp(.1) stays inside the clip: loss = -ratio * mean Delta.
  const double unshifted = loss("current", 0), ratio = std::exp(.1);
  EXPECT_NEAR(loss("old", 0), unshifted, 1e-5);
  EXPECT_NEAR(loss("current", -.1), ratio * unshifted, 1e-4);
  EXPECT_NEAR(loss("old", -.1), ratio * (unshifted - .1), 1e-4);
}

TEST_F(PolicyTrainerTest, FirstStepZeroIsTheStartOfTheSchedule) {
  settings_["first_step"] = 0;
  auto student = Load(ModelDir(1)), teacher = Load(ModelDir(2));
  StepData data = Scored(*student, *teacher);
  const auto trained = student->TrainStep(At(1, 1e-3), data);
  ASSERT_TRUE(trained.ok());
  EXPECT_EQ(trained->metrics.at("hybrid/kl_coef"), 1);
}

TEST(StepDataTest, UpdatesFollowFromTheTurnsWhenTheirNumberIsGiven) {
  EXPECT_EQ(UpdatesOf(6144, 16, 0), 16u);
  EXPECT_EQ(UpdatesOf(6144, 16, 256), 24u);
  EXPECT_EQ(UpdatesOf(6145, 16, 256), 25u);
  EXPECT_EQ(UpdatesOf(1, 16, 256), 1u);
  EXPECT_EQ(UpdatesOf(0, 16, 256), 1u);
}

TEST(StepDataTest, UpdatesDealEveryTrajectoryOnceAndEvenly) {
  for (const int n : {0, 1, 7, 64}) {
    const auto updates = SplitUpdates(n, 8, 3, 5);
    EXPECT_EQ(updates, SplitUpdates(n, 8, 3, 5));
    std::set<int32_t> seen;
    size_t most = 0, least = n;
    for (const auto& update : updates) {
      most = std::max(most, update.size());
      least = std::min(least, update.size());
      EXPECT_TRUE(std::is_sorted(update.begin(), update.end()));
      seen.insert(update.begin(), update.end());
    }
    EXPECT_EQ(seen.size(), static_cast<size_t>(n));
    EXPECT_LE(most, least + 1);
  }
  EXPECT_NE(SplitUpdates(64, 8, 3, 5), SplitUpdates(64, 8, 3, 6));
}

TEST(StepDataTest, MicroBatchesKeepOrderAndTheBudget) {
  std::vector<TrainSequence> sequences(6);
  for (size_t i = 0; i < sequences.size(); ++i)
    sequences[i].tokens.resize(i == 3 ? 50 : 7);
  const auto packed = PackMicroBatches(sequences, {0, 1, 2, 3, 4, 5}, 20);
  EXPECT_THAT(packed, testing::ElementsAre(
                          testing::ElementsAre(0, 1), testing::ElementsAre(2),
                          testing::ElementsAre(3), testing::ElementsAre(4, 5)));
}

}  // namespace
}  // namespace atod::learner
