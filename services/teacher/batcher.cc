#include "services/teacher/batcher.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/log.h"

namespace atod::teacher {
namespace {

uint64_t CountTokens(const ScoreJob& job) {
  uint64_t tokens = 0;
  for (const ScoreRequest& request : job.requests) {
    tokens += request.tokens.size();
  }
  return tokens;
}

uint64_t CountFresh(const ScoreJob& job) {
  uint64_t tokens = 0;
  for (const ScoreRequest& r : job.requests)
    tokens += r.tokens.size() - (r.session.empty() ? 0 : r.spans[0].begin - 1);
  return tokens;
}

bool SameOptions(const ScoreOptions& a, const ScoreOptions& b) {
  return a.temperature == b.temperature && a.want_entropy == b.want_entropy &&
         a.top_k == b.top_k;
}

}  // namespace

Batcher::Batcher(std::unique_ptr<Scorer> scorer, Options options,
                 metrics::Registry& registry)
    : scorer_(std::move(scorer)),
      options_(options),
      tokens_total_(registry.Counter(metrics::kTeacherTokens)),
      cached_total_(registry.Counter(metrics::kTeacherCachedTokens)),
      scored_total_(registry.Counter(metrics::kTeacherScored)),
      queue_items_(registry.Gauge(metrics::kTeacherQueue)),
      batch_tokens_(
          registry.Histogram(metrics::kTeacherBatchTokens, metrics::Sizes())),
      queue_seconds_(registry.Histogram(metrics::kTeacherQueueSeconds)),
      compute_seconds_(registry.Histogram(metrics::kTeacherComputeSeconds)),
      answering_([this] {
        while (auto answer = answers_.Pop()) (*answer)();
      }),
      thread_([this] { Run(); }) {}

Batcher::~Batcher() {
  std::deque<Waiting> left;
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    left.swap(queue_);
  }
  for (Waiting& waiting : left) {
    waiting.done(absl::UnavailableError("the teacher shuts down"));
  }
  thread_.join();
  answers_.Close();
  answering_.join();
}

absl::Status Batcher::Enqueue(ScoreJob job, Done done) {
  Waiting waiting;
  waiting.job = std::move(job);
  waiting.done = std::move(done);
  waiting.tokens = CountTokens(waiting.job);
  waiting.fresh = CountFresh(waiting.job);
  waiting.since = absl::Now();
  absl::MutexLock lock(&mutex_);
  if (closed_) return absl::UnavailableError("the teacher shuts down");
  // A lone job may be larger than the whole queue.
  if (!queue_.empty() &&
      queue_tokens_ + waiting.tokens > options_.queue_tokens) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue of the teacher holds ", queue_tokens_,
                     " tokens of ", options_.queue_tokens));
  }
  queue_tokens_ += waiting.tokens;
  queue_fresh_ += waiting.fresh;
  queue_items_.Increment(static_cast<double>(waiting.job.requests.size()));
  queue_.push_back(std::move(waiting));
  return absl::OkStatus();
}

void Batcher::Run() {
  while (true) {
    std::vector<Waiting> batch = TakeBatch();
    if (batch.empty()) return;
    Score(std::move(batch));
  }
}

std::vector<Batcher::Waiting> Batcher::TakeBatch() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &Batcher::SomeOrClosed));
  mutex_.AwaitWithTimeout(absl::Condition(this, &Batcher::FullOrClosed),
                          options_.gather);
  std::vector<Waiting> batch;
  uint64_t tokens = 0, fresh = 0;
  // In order of arrival; jobs with other options wait for a batch of theirs.
  for (auto it = queue_.begin();
       it != queue_.end() && fresh < options_.batch_tokens;) {
    if (batch.empty() ||
        (SameOptions(it->job.options, batch.front().job.options) &&
         fresh + it->fresh <= options_.batch_tokens)) {
      tokens += it->tokens;
      fresh += it->fresh;
      queue_items_.Decrement(static_cast<double>(it->job.requests.size()));
      batch.push_back(std::move(*it));
      it = queue_.erase(it);
    } else {
      ++it;
    }
  }
  queue_tokens_ -= tokens;
  queue_fresh_ -= fresh;
  return batch;
}

void Batcher::Score(std::vector<Waiting> batch) {
  const absl::Time begin = absl::Now();
  std::vector<ScoreRequest> requests;
  uint64_t tokens = 0;
  for (Waiting& waiting : batch) {
    tokens += waiting.tokens;
    for (const ScoreRequest& request : waiting.job.requests) {
      requests.push_back(request);
    }
  }
  absl::StatusOr<std::vector<ScoreResult>> results =
      scorer_->Score(requests, batch.front().job.options);
  if (results.ok() && results->size() != requests.size()) {
    results = absl::InternalError(absl::StrCat("the scorer returned ",
                                               results->size(), " of ",
                                               requests.size(), " results"));
  }
  if (!results.ok() && batch.size() > 1) {
    // One job must not fail its neighbours.
    spdlog::warn("scoring a batch of {} jobs failed, trying one by one: {}",
                 batch.size(), results.status().ToString());
    for (Waiting& waiting : batch) {
      std::vector<Waiting> one;
      one.push_back(std::move(waiting));
      Score(std::move(one));
    }
    return;
  }
  const absl::Duration computed = absl::Now() - begin;
  tokens_total_.Increment(static_cast<double>(tokens));
  batch_tokens_.Observe(static_cast<double>(tokens));
  compute_seconds_.Observe(absl::ToDoubleSeconds(computed));
  size_t next = 0;
  for (Waiting& waiting : batch) {
    const absl::Duration queued = begin - waiting.since;
    queue_seconds_.Observe(absl::ToDoubleSeconds(queued));
    if (!results.ok()) {
      answers_.Push([done = std::move(waiting.done),
                     status = results.status()] { done(status); });
      continue;
    }
    ScoreJobResult result;
    result.tokens = waiting.tokens;
    result.queued = queued;
    result.computed = computed;
    for (size_t i = 0; i < waiting.job.requests.size(); ++i) {
      scored_total_.Increment(
          static_cast<double>((*results)[next].logprobs.size()));
      result.cached += (*results)[next].cached;
      result.results.push_back(std::move((*results)[next++]));
    }
    cached_total_.Increment(static_cast<double>(result.cached));
    answers_.Push([done = std::move(waiting.done),
                   r = std::move(result)]() mutable { done(std::move(r)); });
  }
}

}  // namespace atod::teacher
