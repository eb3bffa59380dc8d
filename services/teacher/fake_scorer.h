#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "services/teacher/scorer.h"

namespace atod::teacher {

// What a FakeScorer saw and how it behaves; shared with the test. Thread-safe.
class FakeScorerState {
 public:
  // The log-prob of a token: a function of token, position and temperature, so
  // that every misplaced value shows.
  static float LogProb(int32_t token, uint32_t position, float temperature) {
    return -(static_cast<float>(token) + static_cast<float>(position) / 1024) /
           temperature;
  }

  // A request with this token fails its batch.
  static constexpr int32_t kPoison = 666;

  // Batches wait while closed.
  void CloseGate() {
    absl::MutexLock lock(&mutex_);
    open_ = false;
  }
  void OpenGate() {
    absl::MutexLock lock(&mutex_);
    open_ = true;
  }
  // Values missing at the end of each result.
  void set_short_by(size_t n) {
    absl::MutexLock lock(&mutex_);
    short_by_ = n;
  }
  // Requests of each batch so far.
  std::vector<size_t> batches() {
    absl::MutexLock lock(&mutex_);
    return batches_;
  }
  void AwaitBatches(size_t n) {
    absl::MutexLock lock(&mutex_);
    const auto reached = [&] { return batches_.size() >= n; };
    mutex_.Await(absl::Condition(&reached));
  }

  absl::StatusOr<std::vector<ScoreResult>> Score(
      const std::vector<ScoreRequest>& requests, const ScoreOptions& options) {
    absl::MutexLock lock(&mutex_);
    batches_.push_back(requests.size());
    mutex_.Await(absl::Condition(&open_));
    std::vector<ScoreResult> results;
    for (const ScoreRequest& request : requests) {
      ScoreResult& result = results.emplace_back();
      for (const TokenSpan& span : request.spans) {
        for (uint32_t i = span.begin; i < span.begin + span.length; ++i) {
          if (request.tokens[i] == kPoison) {
            return absl::InternalError("poison");
          }
          result.logprobs.push_back(
              LogProb(request.tokens[i], i, options.temperature));
          if (options.want_entropy) {
            result.entropy.push_back(static_cast<float>(i));
          }
        }
      }
      result.logprobs.resize(result.logprobs.size() - short_by_);
    }
    return results;
  }

 private:
  absl::Mutex mutex_;
  bool open_ ABSL_GUARDED_BY(mutex_) = true;
  size_t short_by_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<size_t> batches_ ABSL_GUARDED_BY(mutex_);
};

// A model that needs no weights.
class FakeScorer final : public Scorer {
 public:
  explicit FakeScorer(FakeScorerState& state) : state_(state) {}
  absl::StatusOr<std::vector<ScoreResult>> Score(
      const std::vector<ScoreRequest>& requests,
      const ScoreOptions& options) override {
    return state_.Score(requests, options);
  }

 private:
  FakeScorerState& state_;
};

}  // namespace atod::teacher
