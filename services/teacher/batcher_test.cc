#include "services/teacher/batcher.h"

#include <memory>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "common/base/queue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/teacher/fake_scorer.h"

namespace atod::teacher {
namespace {

using ::testing::ElementsAre;

// `count` requests of `size` tokens, the last of which is scored.
ScoreJob Job(int32_t token, size_t size, size_t count = 1,
             float temperature = 1) {
  ScoreRequest request;
  request.tokens.assign(size, token);
  request.spans = {{static_cast<uint32_t>(size) - 1, 1}};
  return {.requests = std::vector<ScoreRequest>(count, request),
          .options = {.temperature = temperature}};
}

class BatcherTest : public ::testing::Test {
 protected:
  void Start(Batcher::Options options) {
    batcher_ = std::make_unique<Batcher>(std::make_unique<FakeScorer>(state_),
                                         options, registry_);
  }
  absl::Status Enqueue(ScoreJob job) {
    return batcher_->Enqueue(std::move(job), [this](auto result) {
      results_.Push(std::move(result));
    });
  }
  // Makes the scorer busy, so that what follows waits together.
  void Block() {
    state_.CloseGate();
    ASSERT_TRUE(Enqueue(Job(1, 2)).ok());
    state_.AwaitBatches(1);
  }

  metrics::Registry registry_;
  FakeScorerState state_;
  Queue<absl::StatusOr<ScoreJobResult>> results_;
  std::unique_ptr<Batcher> batcher_;
};

TEST_F(BatcherTest, LoneJobIsAnswered) {
  Start({});
  ASSERT_TRUE(Enqueue(Job(7, 5, 2)).ok());
  const auto result = *results_.Pop();
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->tokens, 10);
  ASSERT_EQ(result->results.size(), 2);
  EXPECT_THAT(result->results[0].logprobs,
              ElementsAre(FakeScorerState::LogProb(7, 4, 1)));
}

TEST_F(BatcherTest, JobsThatWaitTogetherAreOneBatchUpToTheBudget) {
  Start({.batch_tokens = 30});
  Block();
  for (int i = 0; i < 7; ++i) ASSERT_TRUE(Enqueue(Job(i, 10)).ok());
  state_.OpenGate();
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(results_.Pop()->ok());
  EXPECT_THAT(state_.batches(), ElementsAre(1, 3, 3, 1));
}

TEST_F(BatcherTest, JobLargerThanTheBudgetIsScoredAlone) {
  Start({.batch_tokens = 8});
  ASSERT_TRUE(Enqueue(Job(1, 100)).ok());
  EXPECT_TRUE(results_.Pop()->ok());
}

TEST_F(BatcherTest, OtherTemperaturesGoIntoOtherBatches) {
  Start({});
  Block();
  for (const float t : {1.f, 0.5f, 1.f, 0.5f}) {
    ASSERT_TRUE(Enqueue(Job(3, 4, 1, t)).ok());
  }
  state_.OpenGate();
  std::vector<float> logprobs;
  ASSERT_TRUE(results_.Pop()->ok());  // the blocker
  for (int i = 0; i < 4; ++i) {
    logprobs.push_back((*results_.Pop())->results[0].logprobs[0]);
  }
  EXPECT_THAT(state_.batches(), ElementsAre(1, 2, 2));
  const float warm = FakeScorerState::LogProb(3, 3, 1);
  const float cold = FakeScorerState::LogProb(3, 3, 0.5);
  EXPECT_THAT(logprobs, ElementsAre(warm, warm, cold, cold));
}

TEST_F(BatcherTest, PoisonedJobDoesNotFailItsNeighbours) {
  Start({});
  Block();
  ASSERT_TRUE(Enqueue(Job(1, 4)).ok());
  ASSERT_TRUE(Enqueue(Job(FakeScorerState::kPoison, 4)).ok());
  ASSERT_TRUE(Enqueue(Job(2, 4)).ok());
  state_.OpenGate();
  std::vector<bool> ok;
  for (int i = 0; i < 4; ++i) ok.push_back(results_.Pop()->ok());
  EXPECT_THAT(ok, ElementsAre(true, true, false, true));
}

TEST_F(BatcherTest, FullQueueRefuses) {
  Start({.queue_tokens = 20});
  Block();
  ASSERT_TRUE(Enqueue(Job(1, 15)).ok());
  EXPECT_EQ(Enqueue(Job(1, 15)).code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(Enqueue(Job(1, 5)).ok());
  state_.OpenGate();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(results_.Pop()->ok());
  EXPECT_TRUE(Enqueue(Job(1, 15)).ok());
  EXPECT_TRUE(results_.Pop()->ok());
}

TEST_F(BatcherTest, ShutdownFailsWhatStillWaits) {
  Start({.batch_tokens = 4});
  Block();
  ASSERT_TRUE(Enqueue(Job(1, 4)).ok());
  std::thread stop([this] { batcher_.reset(); });
  EXPECT_EQ(results_.Pop()->status().code(), absl::StatusCode::kUnavailable);
  state_.OpenGate();
  stop.join();
  EXPECT_TRUE(results_.Pop()->ok());  // the one that was being scored
}

}  // namespace
}  // namespace atod::teacher
