#include "services/rollout/worker.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/kill_point.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/warn.h"

namespace atod::rollout {
namespace {

// Poll returns at least so often, for metrics.
constexpr absl::Duration kLook = absl::Seconds(5);
// Wait before an environment that did not answer is asked again.
constexpr absl::Duration kRetryStarts = absl::Milliseconds(500);

const char* PurposeName(v1::Purpose purpose) {
  switch (purpose) {
    case v1::EVAL:
      return "eval";
    case v1::COLLECT:
      return "collect";
    default:
      return "train";
  }
}

}  // namespace

Worker::Worker(engine::Engine& engine, envs::EnvCaller& envs,
               const Tokenizer& tokenizer, teacher::TeacherCaller* teachers,
               Clock& clock, metrics::Registry& registry, Options options)
    : engine_(engine),
      options_(std::move(options)),
      clock_(clock),
      registry_(registry),
      loop_(engine, envs, tokenizer, teachers, clock, registry, options_.loop) {
  registry_.Gauge(metrics::kRolloutSlots)
      .Set(static_cast<double>(options_.loop.slots));
}

void Worker::Post(Event event) {
  inbox_.Push(std::move(event));
  loop_.Wake();
}

void Worker::OnMessage(v1::CoordinatorMessage message) {
  Post([message = std::move(message)](Worker& w) { w.Handle(message); });
}

void Worker::OnWeights(weights::PublishedWeights weights) {
  Post([weights = std::move(weights)](Worker& w) { w.waiting_ = weights; });
}

void Worker::Stop(absl::Status reason) {
  Post([reason = std::move(reason)](Worker& w) {
    w.stopped_ = true;
    w.stop_reason_ = reason;
  });
}

absl::Status Worker::Run(WorkerClient& client) {
  client_ = &client;
  const absl::Status end = Play();
  if (!end.ok()) {  // nothing new for a worker that ends
    blocked_ = std::string(end.message());
    PublishState();
    client.BeatNow();
  }
  GiveBackAll(end.ok() ? "the worker leaves" : blocked_);
  return end;
}

absl::Status Worker::Play() {
  while (true) {
    while (auto event = inbox_.TryPop()) (*event)(*this);
    if (stopped_) return stop_reason_;
    ATOD_RETURN_IF_ERROR(MaybeInstall());
    ATOD_RETURN_IF_ERROR(WatchEnvironments());
    ATOD_RETURN_IF_ERROR(StartEpisodes());
    PublishState();
    if (draining_ && leases_.empty()) return absl::OkStatus();
    const absl::Duration wait =
        retry_starts_ == absl::InfinitePast() ? kLook : kRetryStarts;
    ATOD_ASSIGN_OR_RETURN(std::vector<v1::Trajectory> played, loop_.Poll(wait));
    for (v1::Trajectory& t : played) HandIn(std::move(t));
  }
}

void Worker::Handle(const v1::CoordinatorMessage& message) {
  switch (message.message_case()) {
    case v1::CoordinatorMessage::kWelcome: {
      const v1::Welcome& welcome = message.welcome();
      if (welcome.incarnation() != incarnation_ ||
          welcome.run_id() != run_id_) {
        // What an earlier life of the run gave out is superseded.
        if (!leases_.empty()) {
          spdlog::warn("run {} is in its life {}: {} leases of life {} end",
                       welcome.run_id(), welcome.incarnation(), leases_.size(),
                       incarnation_);
        }
        leases_.clear();
        loop_.CancelAll();
      }
      run_id_ = welcome.run_id();
      incarnation_ = welcome.incarnation();
      config_hash_ = HashHex(welcome.config_yaml());
      draining_ = false;
      spdlog::info("learner of run {}, life {}, weights {}", run_id_,
                   incarnation_, welcome.version().number());
      PublishState();
      client_->BeatNow();
      return;
    }
    case v1::CoordinatorMessage::kGrant: {
      const v1::Lease& lease = message.grant().lease();
      Lease& held = leases_[lease.lease_id()];
      held.lease = lease;
      held.open = lease.samples_size();
      return;
    }
    case v1::CoordinatorMessage::kCancel:
      loop_.Cancel(message.cancel().lease_id());
      leases_.erase(message.cancel().lease_id());
      return;
    case v1::CoordinatorMessage::kDrain:
      spdlog::info("the learner needs no more work");
      draining_ = true;
      return;
    case v1::CoordinatorMessage::MESSAGE_NOT_SET:
      return;
  }
}

absl::Status Worker::MaybeInstall() {
  if (!waiting_.has_value() || loop_.playing() > 0 || engine_.has_work()) {
    return absl::OkStatus();
  }
  const weights::PublishedWeights next = *std::move(waiting_);
  waiting_.reset();
  const bool other = next.snapshot->root_hash != held_.root_hash();
  if (other) {
    // Verified bytes that do not fit the model: no later version will either.
    ATOD_RETURN_IF_ERROR(options_.install(*next.snapshot));
    KillPoint(KillLabel::kSwapInstalled);
    registry_.Histogram(metrics::kRolloutWeightSyncSeconds)
        .Observe(absl::ToDoubleSeconds(clock_.Now() - next.heard));
  }
  held_.set_incarnation(next.incarnation);
  held_.set_number(next.number);
  held_.set_root_hash(next.snapshot->root_hash);
  registry_.Gauge(metrics::kRolloutWeightVersion)
      .Set(static_cast<double>(next.number));
  if (other) {
    PublishState();
    client_->BeatNow();
  }
  return absl::OkStatus();
}

Worker::Fit Worker::FitOf(const v1::Lease& lease) const {
  const v1::WeightVersion& min = lease.weight_min();
  const v1::WeightVersion& max = lease.weight_max();
  const std::string& held = held_.root_hash();
  if (held.empty()) return Fit::kWait;
  if (held == min.root_hash() || held == max.root_hash()) return Fit::kPlay;
  // An older life of the run may have counted further.
  if (held_.incarnation() == max.incarnation() &&
      held_.number() > max.number()) {
    return Fit::kTooOld;
  }
  return Fit::kWait;
}

absl::Status Worker::WatchEnvironments() {
  const absl::Time now = clock_.Now();
  const AgentLoop::Silence silence = loop_.env_silence();
  if (blocked_.empty()) {
    if (leases_.empty() || now - silence.since < options_.env_patience) {
      return absl::OkStatus();
    }
    blocked_ = absl::StrCat("no environment server has answered for ",
                            absl::FormatDuration(absl::Trunc(
                                now - silence.since, absl::Seconds(1))),
                            ": ", silence.status.message());
    silent_env_ = leases_.begin()->second.lease.env();
    LogWarning(blocked_ + "; leases go back until one does");
    PublishState();
    client_->BeatNow();
  }
  GiveBackAll(blocked_);  // also what was on its way
  if (retry_starts_ > now) return absl::OkStatus();
  const absl::Status status = loop_.Reach(silent_env_);
  if (absl::IsUnavailable(status)) {
    retry_starts_ = now + kRetryStarts;
    return absl::OkStatus();
  }
  if (!status.ok()) return absl::FailedPreconditionError(status.message());
  spdlog::info("environment {} answers again", silent_env_);
  blocked_.clear();
  PublishState();
  client_->BeatNow();
  return absl::OkStatus();
}

absl::Status Worker::StartEpisodes() {
  if (retry_starts_ > clock_.Now()) return absl::OkStatus();
  const bool again = std::exchange(retry_starts_, absl::InfinitePast()) !=
                     absl::InfinitePast();
  // Weights that wait go first: what would start now would delay them.
  if (waiting_.has_value()) return absl::OkStatus();
  std::vector<uint64_t> settled;
  for (auto& [id, held] : leases_) {
    if (held.next == held.lease.samples_size() || !held.failure.empty()) {
      continue;
    }
    const Fit fit = FitOf(held.lease);
    if (fit == Fit::kWait) continue;
    if (fit == Fit::kTooOld) {
      Fail(held, "weights",
           absl::StrCat("weights: found version ", held_.number(),
                        ", expected at most ",
                        held.lease.weight_max().number()));
      settled.push_back(id);
      continue;
    }
    while (held.next < held.lease.samples_size() && loop_.free_slots() > 0) {
      const absl::Status status =
          loop_.Add({.lease = held.lease,
                     .sample = held.lease.samples(held.next),
                     .weights = held_,
                     .run_id = run_id_,
                     .incarnation = incarnation_,
                     .worker = options_.name,
                     .config_hash = config_hash_});
      if (absl::IsUnavailable(status)) {
        if (!again) spdlog::warn("{}", std::string(status.message()));
        retry_starts_ = clock_.Now() + kRetryStarts;
        break;
      }
      // No task was looked at yet: this worker, or its environment server, is
      // not for this run.
      if (!status.ok()) return absl::FailedPreconditionError(status.message());
      ++held.next;
    }
    if (loop_.free_slots() == 0 || retry_starts_ != absl::InfinitePast()) {
      break;
    }
  }
  for (const uint64_t id : settled) Settle(id);
  return absl::OkStatus();
}

void Worker::GiveBackAll(const std::string& reason) {
  for (const auto& [id, lease] : leases_) client_->Return(id, reason);
  leases_.clear();
  loop_.CancelAll();
}

void Worker::HandIn(v1::Trajectory played) {
  const uint64_t lease_id = played.lease_id();
  const auto it = leases_.find(lease_id);
  if (it == leases_.end()) return;
  // An error is handed in like a result: the learner decides what follows.
  if (played.outcome().has_error()) {
    registry_
        .Counter(metrics::kRolloutErrors,
                 {{"cause", played.outcome().error().kind()}})
        .Increment();
  } else {
    registry_
        .Counter(metrics::kRolloutEpisodes,
                 {{"purpose", PurposeName(played.purpose())}})
        .Increment();
  }
  client_->Submit(std::move(played),
                  [this, lease_id, life = incarnation_](v1::SubmitReply reply) {
                    Post([lease_id, life, reply = std::move(reply)](Worker& w) {
                      // Lease ids begin anew with each life of the run.
                      if (life == w.incarnation_) w.OnVerdict(lease_id, reply);
                    });
                  });
}

void Worker::OnVerdict(uint64_t lease_id, const v1::SubmitReply& reply) {
  const auto it = leases_.find(lease_id);
  if (reply.verdict() == v1::SubmitReply::REJECTED) {
    const v1::Problem& p = reply.problem();
    const std::string why = absl::StrCat(p.field(), ": found ", p.found(),
                                         ", expected ", p.expected());
    spdlog::error("the learner rejected a trajectory of lease {}: {}", lease_id,
                  why);
    if (it != leases_.end()) Fail(it->second, "rejected", why);
  }
  if (it == leases_.end()) return;
  --it->second.open;
  Settle(lease_id);
}

void Worker::Fail(Lease& lease, const std::string& cause,
                  const std::string& reason) {
  if (lease.failure.empty()) {
    registry_.Counter(metrics::kRolloutErrors, {{"cause", cause}}).Increment();
    lease.failure = reason;
  }
  lease.open -= lease.lease.samples_size() - lease.next;
  lease.next = lease.lease.samples_size();
}

void Worker::Settle(uint64_t lease_id) {
  const auto it = leases_.find(lease_id);
  if (it == leases_.end() || it->second.open > 0) return;
  if (!it->second.failure.empty()) {
    spdlog::error("lease {} goes back: {}", lease_id, it->second.failure);
    client_->Return(lease_id, it->second.failure);
  }
  leases_.erase(it);
}

void Worker::PublishState() {
  v1::Beat state;
  for (const auto& [id, lease] : leases_) state.add_lease_ids(id);
  state.set_free_slots(static_cast<uint32_t>(loop_.free_slots()));
  if (!held_.root_hash().empty()) *state.mutable_held() = held_;
  state.set_blocked(blocked_);
  client_->SetState(std::move(state));
  registry_.Gauge(metrics::kRolloutSlotsBusy)
      .Set(static_cast<double>(loop_.playing()));
  const engine::EngineStats stats = engine_.stats();
  const auto count = [&](const metrics::ServiceMetric& metric, int64_t total) {
    auto& counter = registry_.Counter(metric);
    counter.Increment(static_cast<double>(total) - counter.Value());
  };
  count(metrics::kRolloutComputedTokens, stats.prompt_tokens_computed);
  count(metrics::kRolloutReusedTokens, stats.prompt_tokens_reused);
  registry_.Gauge(metrics::kRolloutCacheTokens)
      .Set(static_cast<double>(stats.cache_rows));
  registry_.Gauge(metrics::kRolloutCacheTokensUsed)
      .Set(static_cast<double>(stats.cache_rows_used));
}

}  // namespace atod::rollout
