// Random histories of a Coordinator against a reference model.
#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "gtest/gtest.h"
#include "services/learner/coordinator.h"
#include "services/learner/trajectory_check.h"

namespace atod::learner {
namespace {

using SessionId = Coordinator::SessionId;
using v1::SubmitReply;

// What the header of Coordinator promises in its plainest form: a list of
// samples and a list of sessions. Which worker gets which sample is the
// Coordinator's choice; whether it may have it is checked here.
struct Model {
  enum State { kPending, kLeased, kReserved, kDone, kDropped };
  struct Sample {
    WorkId id;
    State state = kPending;
    uint32_t attempt = 0;
    uint64_t lease = 0;
    SessionId session = 0;
    bool named = false;  // the worker knows of the lease
    absl::Time not_before = absl::InfinitePast();
    int failures = 0;
    int accepted = 0;
    bool taken = false;  // by Wait
  };
  using Work = std::pair<v1::Purpose, uint32_t>;
  struct Session {
    std::string name;
    uint32_t slots = 0;
    bool connected = true;
    bool took_over = false;
    absl::Time broken_at, last_heard;
  };

  CoordinatorOptions options;
  Clock* clock = nullptr;
  std::vector<Sample> samples;
  std::map<SessionId, Session> sessions;
  std::set<uint64_t> granted;  // ids of all leases ever
  std::map<v1::Purpose, Work> last_taken;
  std::set<Work> forgotten;
  bool draining = false;

  Sample* Find(const WorkId& id) {
    for (Sample& s : samples)
      if (s.id == id) return &s;
    return nullptr;
  }
  size_t Count(State state) const {
    return std::count_if(samples.begin(), samples.end(), [&](const Sample& s) {
      return s.state == state && !s.taken;
    });
  }
  size_t Leased(SessionId id) const {
    return std::count_if(samples.begin(), samples.end(), [&](const Sample& s) {
      return s.state == kLeased && s.session == id;
    });
  }
  std::set<uint64_t> Leases() const {
    std::set<uint64_t> out;
    for (const Sample& s : samples)
      if (s.state == kLeased) out.insert(s.lease);
    return out;
  }
  void MakePending(Sample& s, bool back_off) {
    absl::Duration wait = options.backoff;
    for (uint32_t i = 0; i < s.attempt && wait < options.max_backoff; ++i)
      wait *= 2;
    s.not_before = back_off ? clock->Now() + std::min(wait, options.max_backoff)
                            : absl::InfinitePast();
    s.state = kPending;
    ++s.attempt;
  }
  template <typename Which>
  void GiveBack(Which which, bool back_off) {
    for (Sample& s : samples)
      if (s.state == kLeased && which(s)) MakePending(s, back_off);
  }
  bool Ready(const Sample& s) const {
    return s.state == kPending && s.not_before <= clock->Now();
  }
  bool Takes(SessionId id, const Session& session) const {
    return session.connected && !session.took_over && !draining &&
           Leased(id) < session.slots;
  }

  void Take(const Work& work) {
    const auto [last, first] = last_taken.try_emplace(work.first, work);
    if (first) return;
    forgotten.insert(last->second);
    last->second = work;
  }
  void Connect(SessionId id, const std::string& name, uint32_t slots) {
    Session fresh{name, slots, true, false, {}, clock->Now()};
    for (auto it = sessions.begin(); it != sessions.end();) {
      if (it->second.name != name) {
        ++it;
        continue;
      }
      for (Sample& s : samples) {
        if (s.state != kLeased || s.session != it->first) continue;
        s.session = id;
        s.named = fresh.took_over = true;
      }
      it = sessions.erase(it);
    }
    sessions[id] = fresh;
  }
  void Beat(SessionId id, const std::set<uint64_t>& leases) {
    Session& session = sessions.at(id);
    session.last_heard = clock->Now();
    session.took_over = false;
    for (Sample& s : samples)
      if (s.session == id && leases.contains(s.lease)) s.named = true;
    GiveBack(
        [&](const Sample& s) {
          return s.session == id && s.named && !leases.contains(s.lease);
        },
        false);
  }
  void Tick() {
    std::set<SessionId> gone;
    for (const auto& [id, s] : sessions) {
      if ((!s.connected && clock->Now() - s.broken_at >= options.grace) ||
          clock->Now() - s.last_heard >= options.silent) {
        gone.insert(id);
      }
    }
    GiveBack([&](const Sample& s) { return gone.contains(s.session); }, false);
    for (const SessionId id : gone) sessions.erase(id);
  }
  // Whether an error of this kind is the sample's end.
  bool LastTry(const Sample& s, const std::string& kind) const {
    return kind == "prompt" || s.failures + 1 >= options.max_tries;
  }
  SubmitReply::Verdict Verdict(const v1::Trajectory& t, const WorkId& id) {
    if (t.id().run_id() != options.run_id) return SubmitReply::REJECTED;
    if (t.incarnation() != options.incarnation) return SubmitReply::SUPERSEDED;
    if (forgotten.contains({id.purpose, id.step}))
      return SubmitReply::SUPERSEDED;
    const Sample* s = Find(id);
    if (s == nullptr) return SubmitReply::REJECTED;
    if (s->attempt != t.id().attempt()) return SubmitReply::SUPERSEDED;
    if (s->state == kLeased) return SubmitReply::ACCEPTED;
    return s->state == kReserved || s->state == kDone ? SubmitReply::DUPLICATE
                                                      : SubmitReply::SUPERSEDED;
  }
};

// One run: three workers that know only what reached them, a store that takes
// its time, and a learner that opens work, drains and resumes.
class History {
 public:
  explicit History(uint64_t seed) : seed_(seed), rng_(seed) {
    for (int i = 0; i < 3; ++i)
      workers_.push_back(
          {.name = absl::StrCat("w", i), .slots = uint32_t(1 + rng_.Below(6))});
    StartLife(1);
  }

  void Play(int operations) {
    for (int i = 0; i < operations && ok_; ++i) Operation();
    if (ok_ && model_.draining) Resume();  // what a drained life left undone
    Finish();
    if (!ok_) {
      ADD_FAILURE() << "seed " << seed_ << ": " << problem_ << "\n"
                    << absl::StrJoin(log_, "\n");
    }
  }

 private:
  struct Worker {
    std::string name;
    uint32_t slots = 0;
    SessionId session = 0;                      // 0: no stream
    std::vector<v1::Lease> wire = {};           // granted, not read
    std::map<uint64_t, v1::Lease> leases = {};  // with what is left to submit
    std::set<uint64_t> stale = {};  // what its next Beat names wrongly
  };
  struct Step {
    v1::Purpose purpose;
    uint32_t step;
    size_t samples;
  };

  void Log(const std::string& what) { log_.push_back(what); }
  void Check(bool good, const std::string& what) {
    if (good || !ok_) return;
    ok_ = false;
    problem_ = what;
  }

  void StartLife(uint32_t incarnation) {
    Log(absl::StrCat("life ", incarnation));
    CoordinatorOptions options;
    options.run_id = "run";
    options.incarnation = incarnation;
    model_ = Model();
    model_.options = options;
    model_.clock = &clock_;
    coordinator_ = std::make_unique<Coordinator>(options, &clock_);
  }

  // The learner dies. Unfinished work is opened again, and so is the newest
  // finished step when its checkpoint was not written.
  void Resume() {
    if (open_.empty() && !done_.empty() && rng_.Below(2)) {
      open_.push_back(done_.back());
      done_.pop_back();
    }
    storing_.clear();
    StartLife(model_.options.incarnation + 1);
    for (Worker& w : workers_) {
      w.session = 0;
      w.wire.clear();
      for (const auto& [id, lease] : std::exchange(w.leases, {}))
        w.stale.insert(id);
    }
    for (const Step& step : std::exchange(open_, {}))
      Open(step.purpose, step.step, step.samples);
  }

  void Open(v1::Purpose purpose, uint32_t step, size_t total) {
    Log(absl::StrCat("open ", purpose, " ", step, ": ", total));
    std::vector<GroupOrder> groups;
    for (size_t left = total; left > 0;) {
      GroupOrder& group = groups.emplace_back();
      group.samples = std::min<size_t>(left, 4);
      group.base.set_task_id(absl::StrCat("task", groups.size()));
      for (uint32_t s = 0; s < group.samples; ++s)
        model_.samples.push_back(
            {.id = {purpose, step, uint32_t(groups.size() - 1), s}});
      left -= group.samples;
    }
    Check(coordinator_->Open(purpose, step, groups).ok(), "Open failed");
    Check(absl::IsAlreadyExists(coordinator_->Open(purpose, step, groups)),
          "the same step opened twice");
    open_.push_back({purpose, step, total});
    Sync();
  }

  // Delivers grants, and compares.
  void Sync() {
    for (Worker& w : workers_) {
      if (w.session == 0) continue;
      const auto outbox = coordinator_->TakeOutbox(w.session);
      const auto session = model_.sessions.find(w.session);
      const bool living =
          session != model_.sessions.end() && session->second.connected;
      Check(outbox.has_value() == living, "a session lives in one of two");
      if (!outbox.has_value()) {
        w.session = 0;  // its stream ends
        if (rng_.Below(2)) w.wire.clear();
        continue;
      }
      for (const v1::CoordinatorMessage& m : *outbox) {
        if (m.has_cancel()) {
          Check(!model_.Leases().contains(m.cancel().lease_id()),
                "a living lease is cancelled");
          w.leases.erase(m.cancel().lease_id());
        }
        if (m.has_grant()) Granted(w, m.grant().lease());
      }
    }
    Compare();
  }

  void Granted(Worker& w, const v1::Lease& lease) {
    Log(absl::StrCat("  grant ", lease.lease_id(), " to ", w.name, ": ",
                     lease.step(), "/", lease.group(), "/",
                     absl::StrJoin(lease.samples(), ","), " attempt ",
                     lease.attempt()));
    const Model::Session& session = model_.sessions.at(w.session);
    Check(model_.granted.insert(lease.lease_id()).second, "lease ids repeat");
    Check(lease.samples_size() > 0, "an empty lease");
    for (const uint32_t sample : lease.samples()) {
      Check(model_.Takes(w.session, session), "granted to who may not have it");
      Model::Sample* s =
          model_.Find({lease.purpose(), lease.step(), lease.group(), sample});
      Check(s != nullptr && model_.Ready(*s), "granted what is not pending");
      if (!ok_) return;
      Check(lease.attempt() == s->attempt, "granted with another attempt");
      s->state = Model::kLeased;
      s->lease = lease.lease_id();
      s->session = w.session;
      s->named = false;
    }
    w.wire.push_back(lease);
  }

  void Compare() {
    const Coordinator::Totals totals = coordinator_->totals();
    Check(totals.pending == model_.Count(Model::kPending), "pending");
    Check(totals.leased == model_.Count(Model::kLeased), "leased");
    Check(totals.collected == model_.Count(Model::kDone), "collected");
    Check(totals.leases == model_.Leases().size(), "number of leases");
    size_t connected = 0;
    for (const auto& [id, s] : model_.sessions) connected += s.connected;
    Check(coordinator_->connected() == int(connected), "connected");
    for (const v1::WorkerStatus& status : coordinator_->Workers()) {
      std::set<uint64_t> leases;
      for (const Model::Sample& s : model_.samples)
        if (s.state == Model::kLeased &&
            model_.sessions.at(s.session).name == status.worker())
          leases.insert(s.lease);
      Check(status.leases() == leases.size(), "leases of a worker");
    }
  }

  void Connect(Worker& w) {
    v1::Hello hello;
    hello.set_worker(w.name);
    hello.set_slots(w.slots);
    const auto id = coordinator_->Connect(hello, [] {});
    Check(id.ok(), "Connect failed");
    if (!ok_) return;
    model_.Connect(*id, w.name, w.slots);
    w.session = *id;
    Sync();
  }
  void Break(Worker& w) {
    Log(absl::StrCat("break ", w.name));
    coordinator_->Disconnect(w.session);
    model_.sessions.at(w.session).connected = false;
    model_.sessions.at(w.session).broken_at = clock_.Now();
    Sync();
  }
  void Beat(Worker& w) {
    v1::Beat beat;
    for (const auto& [id, lease] : w.leases) beat.add_lease_ids(id);
    for (const uint64_t id : std::exchange(w.stale, {})) beat.add_lease_ids(id);
    coordinator_->Beat(w.session, beat);
    model_.Beat(w.session, {beat.lease_ids().begin(), beat.lease_ids().end()});
    Sync();
  }
  void Read(Worker& w) {
    for (v1::Lease& lease : w.wire) w.leases[lease.lease_id()] = lease;
    w.wire.clear();
  }
  void Tick(absl::Duration passed) {
    clock_.Advance(passed);
    coordinator_->Tick();
    model_.Tick();
    Sync();
    for (const auto& [id, session] : model_.sessions)
      for (const Model::Sample& s : model_.samples)
        Check(!(model_.Takes(id, session) && model_.Ready(s)),
              "work waits while a worker is idle");
  }

  v1::Trajectory Played(const v1::Lease& lease, uint32_t sample) const {
    v1::Trajectory t;
    t.mutable_id()->set_run_id("run");
    t.mutable_id()->set_step(lease.step());
    t.mutable_id()->set_group(lease.group());
    t.mutable_id()->set_sample(sample);
    t.mutable_id()->set_attempt(lease.attempt());
    t.set_incarnation(model_.options.incarnation);
    t.set_purpose(lease.purpose());
    return t;
  }
  void Submit(const v1::Trajectory& t) {
    const WorkId id{t.purpose(), t.id().step(), t.id().group(),
                    t.id().sample()};
    const SubmitReply::Verdict expected = model_.Verdict(t, id);
    const Admission admission = coordinator_->Admit(t);
    Log(absl::StrCat("submit ", FormatId(id), " attempt ", t.id().attempt(),
                     " of life ", t.incarnation(), ": ",
                     SubmitReply::Verdict_Name(admission.verdict)));
    Check(admission.verdict == expected,
          absl::StrCat("expected ", SubmitReply::Verdict_Name(expected)));
    if (ok_ && expected == SubmitReply::ACCEPTED) {
      Model::Sample& s = *model_.Find(id);
      s.state = Model::kReserved;
      Check(admission.keep == (!EndedInError(t) ||
                               model_.LastTry(s, t.outcome().error().kind())),
            "keeps what is played again, or forgets what is not");
      storing_.push_back(t);
    }
    Sync();
  }
  // One stored trajectory is done, malformed, or could not be stored.
  void Store(uint64_t fate) {
    const size_t i = rng_.Below(storing_.size());
    const v1::Trajectory t = storing_[i];
    storing_.erase(storing_.begin() + i);
    const WorkId id{t.purpose(), t.id().step(), t.id().group(),
                    t.id().sample()};
    Log(absl::StrCat(fate == 0   ? "reject "
                     : fate == 1 ? "release "
                                 : "accept ",
                     FormatId(id)));
    Model::Sample& s = *model_.Find(id);
    if (fate == 0) {
      coordinator_->Reject(id, "malformed");
      if (++s.failures == model_.options.max_tries)
        s.state = Model::kDropped;
      else
        model_.MakePending(s, true);
    } else if (fate == 1) {
      coordinator_->Release(id);
      model_.MakePending(s, true);
    } else if (EndedInError(t)) {
      coordinator_->Accept(id, t);
      const bool last = model_.LastTry(s, t.outcome().error().kind());
      ++s.failures;
      if (last)
        s.state = Model::kDropped;
      else
        model_.MakePending(s, true);
    } else {
      coordinator_->Accept(id, t);
      s.state = Model::kDone;
      Check(++s.accepted == 1, "a sample was accepted twice");
    }
    Sync();
  }
  void CollectFinished() {
    for (size_t i = 0; i < open_.size() && ok_;) {
      const Step step = open_[i];
      size_t done = 0, dropped = 0;
      for (const Model::Sample& s : model_.samples) {
        if (s.id.purpose != step.purpose || s.id.step != step.step) continue;
        done += s.state == Model::kDone;
        dropped += s.state == Model::kDropped;
      }
      if (done + dropped < step.samples) {
        ++i;
        continue;
      }
      const auto result = coordinator_->Wait(step.purpose, step.step);
      Check(result.ok() && result->trajectories.size() == done &&
                result->dropped.size() == dropped,
            "Wait gives something else");
      for (Model::Sample& s : model_.samples)
        s.taken |= s.id.purpose == step.purpose && s.id.step == step.step;
      model_.Take({step.purpose, step.step});
      open_.erase(open_.begin() + i);
      done_.push_back(step);
    }
  }

  void Operation() {
    Worker& w = workers_[rng_.Below(workers_.size())];
    switch (rng_.Below(20)) {
      case 0:
        if (open_.size() < 3)
          Open(rng_.Below(3) ? v1::TRAIN : v1::EVAL, next_step_++,
               1 + rng_.Below(12));
        break;
      case 1:
      case 2:
        // A second stream of the same name is no error.
        if (w.session != 0 && rng_.Below(10) > 0) break;
        Log(absl::StrCat("connect ", w.name));
        w.session = 0;
        if (rng_.Below(2)) w.wire.clear();
        Connect(w);
        break;
      case 3:
        if (w.session == 0 || rng_.Below(3) > 0) break;
        Break(w);
        break;
      case 4:  // a new process of the same name
        if (rng_.Below(4) > 0) break;
        Log(absl::StrCat("restart ", w.name));
        w.leases.clear();
        w.wire.clear();
        w.stale.clear();
        Connect(w);
        break;
      case 5:
        if (w.session == 0 || w.leases.empty()) break;
        ReturnOne(w, rng_.Below(3) > 0);
        break;
      case 6:
      case 7:
        if (w.session == 0) break;
        Log(absl::StrCat("beat ", w.name));
        if (rng_.Below(3)) Read(w);
        Beat(w);
        break;
      case 8:
      case 9: {
        const absl::Duration passed = rng_.Below(40) == 0
                                          ? model_.options.silent
                                          : absl::Milliseconds(rng_.Below(900));
        Log(absl::StrCat("pass ", absl::FormatDuration(passed)));
        Tick(passed);
        break;
      }
      case 10:  // twice, or late
        if (!history_.empty()) Submit(history_[rng_.Below(history_.size())]);
        break;
      case 11:  // of a run, an attempt or a sample that does not exist
        if (!history_.empty()) {
          v1::Trajectory t = history_[rng_.Below(history_.size())];
          switch (rng_.Below(3)) {
            case 0:
              t.mutable_id()->set_run_id("another");
              break;
            case 1:
              t.mutable_id()->set_attempt(t.id().attempt() + 1 + rng_.Below(2));
              if (model_.Verdict(t, {t.purpose(), t.id().step(), t.id().group(),
                                     t.id().sample()}) ==
                  SubmitReply::ACCEPTED) {
                return;  // that one exists by now
              }
              break;
            case 2:
              t.mutable_id()->set_sample(40);
          }
          Submit(t);
        }
        break;
      case 12:
        if (!storing_.empty()) Store(rng_.Below(6));
        break;
      case 13:
        CollectFinished();
        break;
      case 14:
        if (rng_.Below(15) > 0) break;
        if (rng_.Below(2)) return Resume();
        Log("drain");
        coordinator_->Drain();
        model_.draining = true;
        Sync();
        break;
      default:
        Read(w);
        SubmitOne(w);
    }
  }

  void SubmitOne(Worker& w) {
    if (w.leases.empty()) return;
    auto it = w.leases.begin();
    std::advance(it, rng_.Below(w.leases.size()));
    v1::Lease& lease = it->second;
    const size_t i = rng_.Below(lease.samples_size());
    v1::Trajectory t = Played(lease, lease.samples(i));
    if (rng_.Below(6) == 0) {
      t.mutable_outcome()->set_done_reason(v1::ERROR);
      t.mutable_outcome()->mutable_error()->set_kind(rng_.Below(3) ? "task"
                                                                   : "prompt");
    }
    lease.mutable_samples()->erase(lease.samples().begin() + i);
    if (lease.samples().empty()) w.leases.erase(it);
    history_.push_back(t);
    Submit(t);
  }

  void ReturnOne(Worker& w, bool arrives) {
    auto it = w.leases.begin();
    std::advance(it, rng_.Below(w.leases.size()));
    const uint64_t id = it->first;
    w.leases.erase(it);
    Log(absl::StrCat("return ", id, " of ", w.name, arrives ? "" : ", lost"));
    if (!arrives) {  // the first Beats after a broken stream tell
      if (rng_.Below(2)) w.stale.insert(id);
      return Break(w);
    }
    v1::ReturnLease message;
    message.set_lease_id(id);
    coordinator_->Return(w.session, message);
    model_.sessions.at(w.session).last_heard = clock_.Now();
    model_.GiveBack(
        [&](const Model::Sample& s) {
          return s.lease == id && s.session == w.session;
        },
        true);
    Sync();
  }

  // With workers that do their work everything ends.
  void Finish() {
    for (int round = 0; ok_ && !open_.empty(); ++round) {
      Check(round < 100, "the work does not end");
      for (Worker& w : workers_) {
        if (w.session == 0) Connect(w);
        Read(w);
        Beat(w);
        Read(w);
        while (ok_ && !w.leases.empty()) SubmitOne(w);
      }
      while (ok_ && !storing_.empty()) Store(2);
      CollectFinished();
      Tick(model_.options.max_backoff);
    }
    Check(coordinator_->totals().leases == 0, "a lease is left");
  }

  const uint64_t seed_;
  Rng rng_;
  FakeClock clock_;
  std::unique_ptr<Coordinator> coordinator_;
  Model model_;
  std::vector<Worker> workers_;
  std::vector<v1::Trajectory> history_;  // everything ever submitted
  std::vector<v1::Trajectory> storing_;
  std::vector<Step> open_, done_;
  uint32_t next_step_ = 1;
  bool ok_ = true;
  std::string problem_;
  std::vector<std::string> log_;
};

// A failure prints its seed and history;
// --gtest_filter='*/CoordinatorHistory.*/SEED' plays it again.
class CoordinatorHistory : public testing::TestWithParam<int> {};

TEST_P(CoordinatorHistory, AgreesWithTheModelAndLosesNoWork) {
  spdlog::set_level(spdlog::level::off);
  History(GetParam()).Play(300);
}

INSTANTIATE_TEST_SUITE_P(Seeds, CoordinatorHistory, testing::Range(0, 3000));

}  // namespace
}  // namespace atod::learner
