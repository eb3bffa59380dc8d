#include "common/engine/scheduler.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/problem.h"

namespace atod::engine {

namespace {

// Tokens that are known and not computed.
int64_t Remaining(const Sequence& s) {
  return static_cast<int64_t>(s.tokens.size()) - s.held;
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options), cache_(options.rows) {}

absl::Status Scheduler::Enqueue(ScheduledRequest request) {
  const auto bad = [&](std::string field, std::string found,
                       std::string expected) {
    return BadInput({absl::StrCat("request ", request.id), std::move(field), 0,
                     std::move(found), std::move(expected)});
  };
  const auto queued = [&](auto matches) {
    return std::any_of(queue_.begin(), queue_.end(), matches);
  };
  const auto has_id = [&](const auto& r) { return r.id == request.id; };
  if (queued(has_id) || std::any_of(running_.begin(), running_.end(), has_id))
    return bad("id", absl::StrCat(request.id, ", which is living"), "a new id");
  if (request.session != 0 &&
      (cache_.IsLiving(request.session) ||
       queued([&](const auto& r) { return r.session == request.session; })))
    return bad("session",
               absl::StrCat(request.session, ", which has a living request"),
               "one request of a session after another");
  const int64_t rows =
      static_cast<int64_t>(request.prompt.size()) + request.max_tokens;
  if (rows > cache_.rows())
    return bad("prompt and max_tokens", absl::StrCat(rows, " tokens"),
               absl::StrCat("at most ", cache_.rows(),
                            ", the rows of the key/value cache"));
  if (static_cast<int64_t>(queue_.size()) >= options_.max_queue)
    return absl::ResourceExhaustedError(absl::StrCat(
        "request ", request.id, ": queue: found ", queue_.size(),
        " waiting requests, expected fewer than ", options_.max_queue));
  queue_.push_back(std::move(request));
  return absl::OkStatus();
}

void Scheduler::Admit() {
  while (!queue_.empty() &&
         static_cast<int64_t>(running_.size()) < options_.max_running) {
    const ScheduledRequest& r = queue_.front();
    const int64_t prompt = static_cast<int64_t>(r.prompt.size());
    Sequence* const sequence = cache_.Open({.session = r.session,
                                            .group = r.group,
                                            .prompt = r.prompt,
                                            .rows = prompt + r.max_tokens,
                                            // The last one's logits are wanted.
                                            .reusable = prompt - 1});
    if (sequence == nullptr) return;
    running_.push_back({r.id, sequence});
    queue_.pop_front();
  }
}

StepPlan Scheduler::Next() {
  Admit();
  StepPlan plan;
  plan.copies = cache_.TakeCopies();
  planned_.clear();
  int64_t left = options_.batch_tokens;
  const auto add = [&](size_t i, int64_t count) {
    const Sequence& s = *running_[i].sequence;
    plan.work.push_back({running_[i].id,
                         absl::MakeConstSpan(s.tokens).subspan(s.held, count),
                         s.held, s.region, count == Remaining(s)});
    planned_.push_back(i);
    left -= count;
  };
  const auto decodes = [](const Sequence& s) {
    return s.held >= s.prompt && Remaining(s) == 1;
  };
  for (size_t i = 0; i < running_.size(); ++i)
    if (decodes(*running_[i].sequence)) add(i, 1);
  for (size_t i = 0; i < running_.size() && left > 0; ++i) {
    const Sequence& s = *running_[i].sequence;
    if (s.source == nullptr && !decodes(s))
      add(i, std::min(Remaining(s), left));
  }
  return plan;
}

void Scheduler::Done(const StepPlan& plan, absl::Span<const Drawn> drawn) {
  for (size_t w = 0; w < plan.work.size(); ++w) {
    Running& r = running_[planned_[w]];
    const StepWork& work = plan.work[w];
    const int64_t count = static_cast<int64_t>(work.tokens.size());
    prompt_tokens_computed_ +=
        std::clamp<int64_t>(r.sequence->prompt - work.position, 0, count);
    cache_.Wrote(*r.sequence, count);
    if (!work.sample) continue;
    if (drawn.empty()) std::abort();
    if (drawn.front().last)
      cache_.Close(*std::exchange(r.sequence, nullptr));
    else
      cache_.Append(*r.sequence, drawn.front().token);
    drawn.remove_prefix(1);
  }
  planned_.clear();
  std::erase_if(running_, [](const Running& r) { return !r.sequence; });
}

bool Scheduler::Cancel(uint64_t id) {
  const auto has_id = [&](const auto& r) { return r.id == id; };
  if (std::erase_if(queue_, has_id) > 0) return true;
  const auto it = std::find_if(running_.begin(), running_.end(), has_id);
  if (it == running_.end()) return false;
  cache_.Close(*it->sequence);
  running_.erase(it);
  return true;
}

void Scheduler::EndSession(uint64_t session) {
  cache_.EndSession(session);
  for (ScheduledRequest& r : queue_)
    if (r.session == session) r.session = 0;
}

void Scheduler::Clear() {
  queue_.clear();
  running_.clear();
  cache_.Clear();
}

}  // namespace atod::engine
