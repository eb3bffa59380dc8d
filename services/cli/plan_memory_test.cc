// The plan of --dry-run against what is allocated: every allocation of this
// program is counted.

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/rng.h"
#include "common/config/config.h"
#include "common/model/language_model.h"
#include "common/model/threads.h"
#include "gtest/gtest.h"
#include "services/cli/plan.h"
#include "services/learner/adamw_for_test.h"

namespace {

std::atomic<int64_t> living{0}, most{0};

void* Count(void* p) {
  if (p == nullptr) return p;
  const int64_t now = living += static_cast<int64_t>(malloc_usable_size(p));
  int64_t before = most;
  while (now > before && !most.compare_exchange_weak(before, now)) {
  }
  return p;
}

void Discount(void* p) {
  if (p != nullptr) living -= static_cast<int64_t>(malloc_usable_size(p));
}

}  // namespace

// Instead of the C library's, for all libraries of the program.
extern "C" {
void* __libc_malloc(size_t n);
void* __libc_calloc(size_t n, size_t size);
void* __libc_realloc(void* p, size_t n);
void* __libc_memalign(size_t alignment, size_t n);
void __libc_free(void* p);

void* malloc(size_t n) { return Count(__libc_malloc(n)); }
void* calloc(size_t n, size_t size) { return Count(__libc_calloc(n, size)); }
void* realloc(void* p, size_t n) {
  Discount(p);
  return Count(__libc_realloc(p, n));
}
void* memalign(size_t alignment, size_t n) {
  return Count(__libc_memalign(alignment, n));
}
void* aligned_alloc(size_t alignment, size_t n) {
  return Count(__libc_memalign(alignment, n));
}
int posix_memalign(void** p, size_t alignment, size_t n) {
  *p = Count(__libc_memalign(alignment, n));
  return *p == nullptr ? ENOMEM : 0;
}
void free(void* p) {
  Discount(p);
  __libc_free(p);
}
}

namespace atod::cli {
namespace {

constexpr uint32_t kContext = 256, kResponse = 64;

// 17 million parameters, more than cpu-exact takes for a small model.
model::ModelConfig MidSize() {
  model::ModelConfig m;
  m.vocab_size = 20480;
  m.hidden_size = 512;
  m.intermediate_size = 1536;
  m.num_hidden_layers = 2;
  m.num_attention_heads = 8;
  m.num_key_value_heads = 4;
  m.head_dim = 64;
  m.max_position_embeddings = 512;
  m.tie_word_embeddings = true;
  return m;
}

struct Setting {
  std::string dtype;
  bool exact;
};

class PlanMemoryTest : public testing::TestWithParam<Setting> {
 protected:
  static void SetUpTestSuite() {
    ASSERT_TRUE(learner::WriteRandomModel(MidSize(), Dir()).ok());
  }
  static std::string Dir() { return testing::TempDir() + "/plan_memory_model"; }

  PlanMemoryTest() {
    config_ = config::LoadRunConfig({})->config;
    config_.set_device("cpu");
    config_.set_deterministic(GetParam().exact);
    config_.mutable_model()->set_dtype(GetParam().dtype);
    config_.mutable_model()->set_max_context(kContext);
    config_.mutable_sampling()->mutable_train()->set_max_tokens(kResponse);
    config_.mutable_optimizer()->set_micro_batch_tokens(4 * kContext);
    config_.mutable_rollout()->set_slots(8);
    config_.mutable_rollout()->set_batch_tokens(1024);
    config_.mutable_threads()->set_learner(1);
    config_.mutable_threads()->set_rollout(1);
    config_.mutable_threads()->set_teacher(1);
    model::SetComputeThreads(1);
  }

  std::unique_ptr<model::LanguageModel> Open(bool gradients) {
    auto model =
        model::LanguageModel::Open(Dir(), {.dtype = GetParam().dtype,
                                           .deterministic = GetParam().exact,
                                           .gradients = gradients,
                                           .max_context = kContext});
    EXPECT_TRUE(model.ok()) << model.status();
    return *std::move(model);
  }

  static std::vector<model::ScoredSequence> Sequences(int64_t tokens) {
    std::vector<model::ScoredSequence> out(tokens / kContext);
    Rng rng(1);
    for (model::ScoredSequence& s : out) {
      for (uint32_t i = 0; i < kContext; ++i)
        s.tokens.push_back(static_cast<int32_t>(rng.Below(20480)));
      s.spans = {{kContext - kResponse, kResponse}};
    }
    return out;
  }

  // What `work` allocates at most; in a thread of its own, because kernels keep
  // memory a thread.
  void Measure(const std::function<void()>& work) {
    most = begin_ = living.load();
    std::thread(work).join();
  }
  void ExpectNear(const ProcessMemory& plan) {
    const double measured = static_cast<double>(most - begin_);
    const double planned = static_cast<double>(plan.Host(false));
    for (const auto* items : {&plan.held, &plan.phases})
      for (const ProcessMemory::Item& item : *items)
        std::printf("%8.1f MB %s\n", static_cast<double>(item.bytes) / 1e6,
                    item.what.c_str());
    std::printf("planned %.1f MB, measured %.1f MB\n", planned / 1e6,
                measured / 1e6);
    EXPECT_GT(planned, 0.9 * measured);
    EXPECT_LT(planned, 1.1 * measured);
  }

  v1::RunConfig config_;
  int64_t begin_ = 0;
};

TEST_P(PlanMemoryTest, LearnersTrainAsPlanned) {
  Measure([&] {
    const auto model = Open(true);
    const std::function<void()> update = learner::MakeUpdate(*model);
    const auto batch = Sequences(4 * kContext);
    auto sent = std::make_shared<const weights::WeightSnapshot>(
        *model->Export(GetParam().dtype));
    for (int step = 0; step < 2; ++step) {
      const auto known = model->Score(batch, {});
      ASSERT_TRUE(known.ok()) << known.status();
      const auto scored = model->ScoreForBackward(batch, {});
      ASSERT_TRUE(scored.ok());
      ASSERT_TRUE(
          model
              ->Backward(std::vector<float>(scored->logprobs.size(), -0.1f), {})
              .ok());
      update();
      ASSERT_TRUE(model->ParametersChanged().ok());
      sent = std::make_shared<const weights::WeightSnapshot>(
          *model->Export(GetParam().dtype));
    }
  });
  ExpectNear(LearnerMemory(config_, MidSize(), nullptr));
}

TEST_P(PlanMemoryTest, RolloutsDecodeAsPlanned) {
  const auto trained = Open(false);
  Measure([&] {
    const auto model = Open(false);
    ASSERT_TRUE(model->AllocateCache(8 * kContext).ok());
    const auto held = model->Export(GetParam().dtype);
    const auto batch = Sequences(8 * kContext);
    std::vector<model::SampledToken> sampled;
    for (int64_t i = 0; i < 8; i += 4) {  // 1024 tokens a step
      std::vector<model::StepInput> inputs;
      for (int64_t s = i; s < i + 4; ++s)
        inputs.push_back(
            {batch[s].tokens, 0, {s * kContext, kContext}, model::Sampling{}});
      ASSERT_TRUE(model->Step(inputs, &sampled).ok());
    }
    const auto next = trained->Export(GetParam().dtype);
    ASSERT_TRUE(model->Install(*next).ok());
  });
  ExpectNear(RolloutMemory(config_, MidSize()));
}

TEST_P(PlanMemoryTest, TeachersScoreAsPlanned) {
  const auto batch = Sequences(16384);
  Measure([&] {
    const auto model = Open(false);
    const auto known = model->Score(batch, {});
    ASSERT_TRUE(known.ok()) << known.status();
  });
  ExpectNear(TeacherMemory(config_, {MidSize()}));
}

INSTANTIATE_TEST_SUITE_P(, PlanMemoryTest,
                         testing::Values(Setting{"float32", true},
                                         Setting{"float32", false},
                                         Setting{"bfloat16", false}),
                         [](const auto& info) {
                           return info.param.dtype +
                                  (info.param.exact ? "_exact" : "_torch");
                         });

}  // namespace
}  // namespace atod::cli
