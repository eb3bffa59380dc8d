#include "services/learner/coordinator.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/base/kill_point.h"
#include "common/base/log.h"
#include "common/base/problem.h"
#include "common/base/warn.h"
#include "services/learner/trajectory_check.h"

namespace atod::learner {
namespace {

void Call(const std::vector<std::function<void()>>& wakes) {
  for (const auto& wake : wakes) wake();
}

// Hashes that are empty on one side are not compared.
absl::Status Compatible(const v1::Hello& hello,
                        const CoordinatorOptions& options) {
  const v1::ModelInfo &worker = hello.model(), &run = options.model;
  for (const auto& [key, expected] : options.settings) {
    const auto found = hello.settings().find(key);
    if (found != hello.settings().end() && found->second == expected) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "worker ", hello.worker(), ": ", key, ": found ",
        found == hello.settings().end() ? "nothing" : found->second,
        ", expected ", expected, " as in the learner's run ", options.run_id));
  }
  const auto check = [](const char* field, const std::string& found,
                        const std::string& expected) {
    if (found.empty() || expected.empty() || found == expected)
      return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("worker's model: ", field, ": found ", found,
                     ", expected ", expected, " as in the run"));
  };
  absl::Status s =
      check("tokenizer_hash", worker.tokenizer_hash(), run.tokenizer_hash());
  if (s.ok())
    s = check("arch_hash of model.path", worker.arch_hash(), run.arch_hash());
  return s;
}

}  // namespace

Coordinator::Coordinator(CoordinatorOptions options, Clock* clock)
    : options_(std::move(options)), clock_(clock) {}

// --- Workers.

absl::StatusOr<Coordinator::SessionId> Coordinator::Connect(
    const v1::Hello& hello, std::function<void()> wake) {
  if (hello.worker().empty() || hello.slots() == 0) {
    return BadInput({.file = "Hello",
                     .field = hello.worker().empty() ? "worker" : "slots",
                     .found = "nothing",
                     .expected = "a name and at least one slot"});
  }
  absl::Status fits = Compatible(hello, options_);
  if (!fits.ok()) return fits;
  Wakes wakes;
  SessionId id = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (absl::Status free = CheckName(hello); !free.ok()) return free;
    id = next_session_++;
    Session& session = sessions_[id];
    session.hello = hello;
    session.wake = std::move(wake);
    session.free_slots = hello.slots();
    session.held = hello.held();
    session.last_heard = clock_->Now();
    for (auto other = sessions_.begin(); other != sessions_.end();) {
      if (other->first == id ||
          other->second.hello.worker() != hello.worker()) {
        ++other;
        continue;
      }
      for (auto& [lease_id, lease] : leases_) {
        if (lease.session != other->first) continue;
        lease.session = id;
        lease.named = true;
        session.used += lease.samples.size();
        session.took_over = true;
      }
      if (other->second.wake)
        wakes.push_back(std::move(other->second.wake));  // its stream ends
      other = sessions_.erase(other);
    }
    v1::CoordinatorMessage message;
    v1::Welcome& welcome = *message.mutable_welcome();
    welcome.set_run_id(options_.run_id);
    welcome.set_incarnation(options_.incarnation);
    welcome.set_config_yaml(options_.config_yaml);
    welcome.set_beat_seconds(options_.beat_seconds);
    *welcome.mutable_version() = version_;
    Send(session, std::move(message), wakes);
    if (draining_) {
      v1::CoordinatorMessage drain;
      drain.mutable_drain();
      Send(session, std::move(drain), wakes);
    }
    Pump(wakes);
  }
  Call(wakes);
  return id;
}

void Coordinator::Beat(SessionId id, const v1::Beat& beat) {
  Wakes wakes;
  std::string warning;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = sessions_.find(id);
    if (it == sessions_.end()) return;
    Session& session = it->second;
    session.last_heard = clock_->Now();
    session.free_slots = beat.free_slots();
    if (!beat.blocked().empty() && !session.blocked)
      warning = absl::StrCat("worker ", session.hello.worker(),
                             " plays nothing: ", beat.blocked());
    session.blocked = !beat.blocked().empty();
    session.held = beat.held();
    session.took_over = false;
    const std::set<uint64_t> named(beat.lease_ids().begin(),
                                   beat.lease_ids().end());
    std::vector<uint64_t> lost;
    for (auto& [lease_id, lease] : leases_) {
      if (lease.session != id) continue;
      if (named.contains(lease_id)) {
        lease.named = true;
      } else if (lease.named) {
        lost.push_back(lease_id);
      }
    }
    for (const uint64_t lease_id : lost) GiveBack(lease_id, false);
    for (const uint64_t lease_id : named) {
      if (lease_id >= next_lease_ || leases_.contains(lease_id)) continue;
      // Finished, or taken away while the worker was gone. Finished ones may be
      // listed until the worker hears the verdict: cancelling what is over
      // changes nothing.
      v1::CoordinatorMessage message;
      message.mutable_cancel()->set_lease_id(lease_id);
      message.mutable_cancel()->set_reason("no longer leased to this worker");
      Send(session, std::move(message), wakes);
    }
    Pump(wakes);
  }
  if (!warning.empty()) LogWarning(warning);
  Call(wakes);
}

void Coordinator::Return(SessionId id, const v1::ReturnLease& message) {
  Wakes wakes;
  std::string warning;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = sessions_.find(id);
    if (it == sessions_.end()) return;
    it->second.last_heard = clock_->Now();
    const auto lease = leases_.find(message.lease_id());
    if (lease == leases_.end() || lease->second.session != id) return;
    spdlog::warn("worker {} gave back lease {}: {}", it->second.hello.worker(),
                 message.lease_id(), message.reason());
    int returns = 0;
    for (const uint32_t sample : lease->second.samples) {
      WorkId work = lease->second.first;
      work.sample = sample;
      returns = std::max(returns, ++Find(work)->returns);
    }
    if (returns >= options_.max_tries && told_.insert(message.reason()).second)
      warning =
          absl::StrCat("work was given back ", returns,
                       " times, and is given out again: ", message.reason(),
                       " (worker ", it->second.hello.worker(), ")");
    GiveBack(message.lease_id(), /*back_off=*/true);
    Pump(wakes);
  }
  if (!warning.empty()) LogWarning(warning);
  Call(wakes);
}

void Coordinator::Disconnect(SessionId id) {
  absl::MutexLock lock(&mutex_);
  const auto it = sessions_.find(id);
  if (it == sessions_.end() || !it->second.connected) return;
  it->second.connected = false;
  it->second.broken_at = clock_->Now();
  it->second.wake = nullptr;
}

std::optional<std::vector<v1::CoordinatorMessage>> Coordinator::TakeOutbox(
    SessionId id) {
  absl::MutexLock lock(&mutex_);
  const auto it = sessions_.find(id);
  if (it == sessions_.end() || !it->second.connected) return std::nullopt;
  return std::exchange(it->second.outbox, {});
}

void Coordinator::Tick() {
  Wakes wakes;
  {
    absl::MutexLock lock(&mutex_);
    const absl::Time now = clock_->Now();
    std::vector<SessionId> gone;
    for (const auto& [id, session] : sessions_) {
      const bool broken =
          !session.connected && now - session.broken_at >= options_.grace;
      const bool silent = now - session.last_heard >= options_.silent;
      if (broken || silent) {
        spdlog::warn("worker {} is {}; its {} samples go to others",
                     session.hello.worker(), broken ? "gone" : "silent",
                     session.used);
        gone.push_back(id);
      }
    }
    for (const SessionId id : gone) {
      GiveBackAll(id);
      if (sessions_.at(id).wake) wakes.push_back(sessions_.at(id).wake);
      sessions_.erase(id);
    }
    Pump(wakes);
  }
  Call(wakes);
}

// --- Trajectories.

Admission Coordinator::Admit(const v1::Trajectory& t) {
  absl::MutexLock lock(&mutex_);
  Admission out;
  out.id = {t.purpose(), t.id().step(), t.id().group(), t.id().sample()};
  if (t.id().run_id() != options_.run_id) {
    ++totals_.rejected;
    out.verdict = v1::SubmitReply::REJECTED;
    out.problem = absl::StrCat("id.run_id: found '", t.id().run_id(),
                               "', expected '", options_.run_id, "'");
    return out;
  }
  Sample* sample = Find(out.id);
  if (t.incarnation() != options_.incarnation) {
    // Work of an earlier life, or of a step that this life never opened.
    ++totals_.superseded;
    out.verdict = v1::SubmitReply::SUPERSEDED;
    return out;
  }
  const auto order = orders_.find({out.id.purpose, out.id.step});
  if (order != orders_.end() && order->second.taken &&
      order->second.groups.empty()) {
    ++totals_.superseded;
    out.verdict = v1::SubmitReply::SUPERSEDED;
    return out;
  }
  if (sample == nullptr) {
    ++totals_.rejected;
    out.verdict = v1::SubmitReply::REJECTED;
    out.problem = absl::StrCat("id: found ", FormatId(out.id),
                               ", expected work that was given out");
    return out;
  }
  if (t.id().attempt() != sample->attempt || sample->state == State::kPending ||
      sample->state == State::kDropped) {
    ++totals_.superseded;
    out.verdict = v1::SubmitReply::SUPERSEDED;
    return out;
  }
  if (sample->state != State::kLeased) {
    ++totals_.duplicates;
    out.verdict = v1::SubmitReply::DUPLICATE;
    return out;
  }
  out.order = order->second.groups[out.id.group].order;
  out.verdict = v1::SubmitReply::ACCEPTED;
  out.keep = !EndedInError(t) || !PlayAgain(*sample, t.outcome().error());
  Detach(out.id, *sample);
  sample->state = State::kReserved;
  return out;
}

void Coordinator::Accept(const WorkId& id, v1::Trajectory trajectory) {
  Wakes wakes;
  {
    absl::MutexLock lock(&mutex_);
    Sample* sample = Find(id);
    if (sample == nullptr || sample->state != State::kReserved) return;
    if (!EndedInError(trajectory)) {
      sample->state = State::kDone;
      sample->result = std::make_unique<v1::Trajectory>(std::move(trajectory));
      CloseOne(id);
    } else {
      const v1::EpisodeError& error = trajectory.outcome().error();
      const bool again = PlayAgain(*sample, error);
      ++sample->failures;
      if (again) {
        MakePending(*sample, /*back_off=*/true);
      } else {
        Drop(id, *sample, absl::StrCat(error.kind(), ": ", error.message()),
             error.kind());
      }
    }
    Pump(wakes);  // the worker has a free slot
  }
  Call(wakes);
}

void Coordinator::Reject(const WorkId& id, const std::string& reason) {
  Wakes wakes;
  {
    absl::MutexLock lock(&mutex_);
    Sample* sample = Find(id);
    if (sample == nullptr || sample->state != State::kReserved) return;
    ++totals_.rejected;
    if (++sample->failures >= options_.max_tries) {
      Drop(id, *sample, reason);
    } else {
      MakePending(*sample, /*back_off=*/true);
    }
    Pump(wakes);
  }
  Call(wakes);
}

void Coordinator::Release(const WorkId& id) {
  absl::MutexLock lock(&mutex_);
  Sample* sample = Find(id);
  if (sample == nullptr || sample->state != State::kReserved) return;
  MakePending(*sample, /*back_off=*/true);
}

// --- The run.

void Coordinator::Announce(const v1::WeightVersion& version) {
  absl::MutexLock lock(&mutex_);
  version_ = version;
}

absl::Status Coordinator::Open(v1::Purpose purpose, uint32_t step,
                               std::vector<GroupOrder> groups) {
  Wakes wakes;
  {
    absl::MutexLock lock(&mutex_);
    const auto [it, fresh] = orders_.try_emplace({purpose, step});
    if (!fresh) {
      return absl::AlreadyExistsError(
          absl::StrCat("work of step ", step, " was opened before"));
    }
    Order& order = it->second;
    for (GroupOrder& g : groups) {
      Group group;
      group.samples.resize(g.samples);
      for (Sample& s : group.samples) {
        s.not_before = absl::InfinitePast();
        if (g.set_aside.empty()) continue;
        s.state = State::kDropped;
        s.dropped_because = g.set_aside;
        s.dropped_error = "task";
      }
      if (g.set_aside.empty()) group.open = g.samples;
      order.open += group.open > 0;
      group.order = std::make_shared<const GroupOrder>(std::move(g));
      order.groups.push_back(std::move(group));
    }
    open_.push_back({purpose, step});
    Pump(wakes);
  }
  Call(wakes);
  return absl::OkStatus();
}

absl::StatusOr<OrderResult> Coordinator::Wait(v1::Purpose purpose,
                                              uint32_t step) {
  absl::MutexLock lock(&mutex_);
  const auto it = orders_.find({purpose, step});
  if (it == orders_.end() || it->second.taken) {
    return absl::NotFoundError(
        absl::StrCat("no open work of step ", step, " to wait for"));
  }
  Order& order = it->second;
  const auto ready = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return order.open == 0 || closed_;
  };
  mutex_.Await(absl::Condition(&ready));
  if (order.open != 0) return absl::CancelledError("the run is stopping");
  OrderResult result;
  order.taken = true;
  std::erase(open_, OrderKey{purpose, step});
  for (size_t g = 0; g < order.groups.size(); ++g) {
    Group& group = order.groups[g];
    for (size_t s = 0; s < group.samples.size(); ++s) {
      Sample& sample = group.samples[s];
      if (sample.result != nullptr) {
        result.trajectories.push_back(std::move(*sample.result));
        sample.result.reset();
      } else {
        result.dropped.push_back({{purpose, step, static_cast<uint32_t>(g),
                                   static_cast<uint32_t>(s)},
                                  sample.dropped_because,
                                  sample.dropped_error});
      }
    }
    group.order.reset();
  }
  for (auto& [key, other] : orders_) {
    if (key.first == purpose && key.second != step && other.taken)
      std::vector<Group>().swap(other.groups);
  }
  return result;
}

void Coordinator::Drain() {
  Wakes wakes;
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
    for (auto& [id, session] : sessions_) {
      v1::CoordinatorMessage message;
      message.mutable_drain();
      Send(session, std::move(message), wakes);
    }
  }
  Call(wakes);
}

void Coordinator::WaitEmpty(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto empty = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return std::none_of(sessions_.begin(), sessions_.end(),
                        [](const auto& s) { return s.second.connected; });
  };
  mutex_.AwaitWithTimeout(absl::Condition(&empty), timeout);
}

void Coordinator::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

Coordinator::Totals Coordinator::totals() const {
  absl::MutexLock lock(&mutex_);
  Totals out = totals_;
  out.leases = leases_.size();
  for (const OrderKey& key : open_) {
    for (const Group& group : orders_.at(key).groups) {
      for (const Sample& sample : group.samples) {
        out.pending += sample.state == State::kPending;
        out.leased += sample.state == State::kLeased;
        out.collected += sample.state == State::kDone;
      }
    }
  }
  return out;
}

std::vector<v1::WorkerStatus> Coordinator::Workers() const {
  absl::MutexLock lock(&mutex_);
  std::vector<v1::WorkerStatus> out;
  for (const auto& [id, session] : sessions_) {
    if (!session.connected) continue;
    v1::WorkerStatus& w = out.emplace_back();
    w.set_worker(session.hello.worker());
    w.set_leases(std::count_if(
        leases_.begin(), leases_.end(),
        [id = id](const auto& l) { return l.second.session == id; }));
    w.set_free_slots(session.free_slots);
    *w.mutable_held() = session.held;
    *w.mutable_model() = session.hello.model();
    w.set_silent_seconds(
        absl::ToDoubleSeconds(clock_->Now() - session.last_heard));
  }
  return out;
}

int Coordinator::connected() const {
  absl::MutexLock lock(&mutex_);
  return std::count_if(sessions_.begin(), sessions_.end(),
                       [](const auto& s) { return s.second.connected; });
}

// --- Under the lock.

absl::Status Coordinator::CheckName(const v1::Hello& hello) {
  for (auto& [id, other] : sessions_) {
    if (!other.connected || other.hello.worker() != hello.worker() ||
        other.hello.life() == hello.life()) {
      continue;
    }
    // What a dying process sent may still be on its way when the next one asks.
    const absl::Time asked =
        other.rivals.try_emplace(hello.life(), clock_->Now()).first->second;
    if (other.last_heard - asked < 2 * absl::Seconds(options_.beat_seconds)) {
      return absl::UnavailableError(
          absl::StrCat("worker ", hello.worker(),
                       ": the learner has one of this name, which may be gone; "
                       "ask again"));
    }
    return absl::FailedPreconditionError(absl::StrCat(
        "worker ", hello.worker(),
        ": name: found the name of another worker, which lives, expected a "
        "name of its own: start each worker of a machine with another "
        "--index"));
  }
  return absl::OkStatus();
}

void Coordinator::Send(Session& session, v1::CoordinatorMessage message,
                       Wakes& wakes) {
  if (!session.connected) return;
  if (session.outbox.empty() && session.wake) wakes.push_back(session.wake);
  session.outbox.push_back(std::move(message));
}

size_t Coordinator::CountPending(absl::Time now) const {
  size_t pending = 0;
  for (const OrderKey& key : open_)
    for (const Group& group : orders_.at(key).groups)
      for (const Sample& s : group.samples)
        pending += s.state == State::kPending && s.not_before <= now;
  return pending;
}

void Coordinator::Pump(Wakes& wakes) {
  if (draining_ || closed_) return;
  size_t pending = CountPending(clock_->Now());
  while (pending > 0) {
    // The least loaded worker first, so that one that came first does not take
    // everything.
    Session* best = nullptr;
    SessionId best_id = 0;
    size_t workers = 0;
    for (auto& [id, session] : sessions_) {
      if (!session.connected || session.took_over || session.blocked) continue;
      ++workers;
      if (session.used >= session.hello.slots()) continue;
      if (best == nullptr || uint64_t{session.used} * best->hello.slots() <
                                 uint64_t{best->used} * session.hello.slots()) {
        best = &session;
        best_id = id;
      }
    }
    if (best == nullptr) return;
    // Whole groups while there is plenty, smaller chunks as work gets scarce.
    const size_t fair = (pending + 2 * workers - 1) / (2 * workers);
    const uint32_t before = best->used;
    if (!GrantOne(*best, best_id,
                  std::min<size_t>(fair, best->hello.slots() - best->used),
                  wakes)) {
      return;
    }
    pending -= best->used - before;
  }
}

bool Coordinator::GrantOne(Session& session, SessionId id, size_t most,
                           Wakes& wakes) {
  const absl::Time now = clock_->Now();
  for (const OrderKey& key : open_) {
    Order& order = orders_.at(key);
    for (size_t g = 0; g < order.groups.size(); ++g) {
      Group& group = order.groups[g];
      LeaseState lease;
      uint32_t attempt = 0;
      for (size_t s = 0; s < group.samples.size(); ++s) {
        Sample& sample = group.samples[s];
        if (sample.state != State::kPending || sample.not_before > now)
          continue;
        if (lease.samples.empty()) attempt = sample.attempt;
        if (sample.attempt != attempt) continue;
        lease.samples.push_back(s);
        if (lease.samples.size() == most) break;
      }
      if (lease.samples.empty()) continue;
      const uint64_t lease_id = next_lease_++;
      v1::CoordinatorMessage message;
      v1::Lease& out = *message.mutable_grant()->mutable_lease();
      out = group.order->base;
      out.set_lease_id(lease_id);
      out.set_step(key.second);
      out.set_group(g);
      out.set_attempt(attempt);
      out.set_purpose(key.first);
      for (const uint32_t s : lease.samples) {
        out.add_samples(s);
        group.samples[s].state = State::kLeased;
        group.samples[s].lease = lease_id;
      }
      session.used += lease.samples.size();
      lease.session = id;
      lease.first = {key.first, key.second, static_cast<uint32_t>(g),
                     lease.samples.front()};
      leases_[lease_id] = std::move(lease);
      ++totals_.granted;
      KillPoint(KillLabel::kLeaseGranted);
      Send(session, std::move(message), wakes);
      return true;
    }
  }
  return false;
}

void Coordinator::GiveBack(uint64_t lease_id, bool back_off) {
  const auto it = leases_.find(lease_id);
  if (it == leases_.end()) return;
  LeaseState lease = std::move(it->second);
  leases_.erase(it);
  ++totals_.returned;
  const auto session = sessions_.find(lease.session);
  if (session != sessions_.end()) session->second.used -= lease.samples.size();
  for (const uint32_t s : lease.samples) {
    WorkId id = lease.first;
    id.sample = s;
    MakePending(*Find(id), back_off);
  }
}

void Coordinator::GiveBackAll(SessionId session) {
  std::vector<uint64_t> ids;
  for (const auto& [lease_id, lease] : leases_)
    if (lease.session == session) ids.push_back(lease_id);
  for (const uint64_t lease_id : ids) GiveBack(lease_id, /*back_off=*/false);
}

void Coordinator::Detach(const WorkId& id, Sample& sample) {
  const auto it = leases_.find(sample.lease);
  sample.lease = 0;
  if (it == leases_.end()) return;
  std::erase(it->second.samples, id.sample);
  const auto session = sessions_.find(it->second.session);
  if (session != sessions_.end()) --session->second.used;
  if (it->second.samples.empty()) leases_.erase(it);
}

void Coordinator::MakePending(Sample& sample, bool back_off) {
  sample.state = State::kPending;
  sample.lease = 0;
  const uint32_t doublings = std::min<uint32_t>(sample.attempt, 10);
  sample.not_before =
      back_off ? clock_->Now() +
                     std::min(options_.backoff * (int64_t{1} << doublings),
                              options_.max_backoff)
               : absl::InfinitePast();
  ++sample.attempt;
}

void Coordinator::Drop(const WorkId& id, Sample& sample, std::string reason,
                       std::string error) {
  sample.state = State::kDropped;
  sample.dropped_because = std::move(reason);
  sample.dropped_error = std::move(error);
  CloseOne(id);
}

void Coordinator::CloseOne(const WorkId& id) {
  Order& order = orders_.at({id.purpose, id.step});
  if (--order.groups[id.group].open > 0) return;
  --order.open;
  KillPoint(KillLabel::kGroupComplete);
}

bool Coordinator::PlayAgain(const Sample& sample,
                            const v1::EpisodeError& error) const {
  // The same prompt is rendered again, and fits no better.
  const bool final = error.kind() == "prompt" || error.kind() == "template";
  return !final && sample.failures + 1 < options_.max_tries;
}

Coordinator::Sample* Coordinator::Find(const WorkId& id) {
  const auto it = orders_.find({id.purpose, id.step});
  if (it == orders_.end() || id.group >= it->second.groups.size())
    return nullptr;
  std::vector<Sample>& samples = it->second.groups[id.group].samples;
  return id.sample < samples.size() ? &samples[id.sample] : nullptr;
}

}  // namespace atod::learner
