#include "services/learner/intake.h"

#include "absl/strings/str_cat.h"
#include "common/base/kill_point.h"
#include "common/base/log.h"
#include "common/base/problem.h"
#include "common/base/warn.h"

namespace atod::learner {
namespace {

// Submissions that share one transaction, at most.
constexpr size_t kBatch = 64;

v1::SubmitReply Reply(v1::SubmitReply::Verdict verdict,
                      const Problem& problem = {}) {
  v1::SubmitReply reply;
  reply.set_verdict(verdict);
  if (verdict == v1::SubmitReply::REJECTED) {
    reply.mutable_problem()->set_file(problem.file);
    reply.mutable_problem()->set_field(problem.field);
    reply.mutable_problem()->set_found(problem.found);
    reply.mutable_problem()->set_expected(problem.expected);
  }
  return reply;
}

}  // namespace

Intake::Intake(Coordinator* coordinator, Ledger* ledger, TrajectoryStore* store,
               TrajectoryLimits limits)
    : coordinator_(coordinator),
      ledger_(ledger),
      store_(store),
      limits_(limits),
      thread_([this] { Loop(); }) {}

Intake::~Intake() {
  queue_.Close();
  thread_.join();
}

void Intake::Submit(v1::Trajectory trajectory, Done done) {
  KillPoint(KillLabel::kSubmitReceived);
  Item item{std::move(trajectory), std::move(done)};
  if (!queue_.Push(std::move(item)))
    item.done(absl::UnavailableError("the learner is stopping"));
}

void Intake::Loop() {
  while (std::optional<Item> first = queue_.Pop()) {
    std::vector<Item> items;
    items.push_back(*std::move(first));
    while (items.size() < kBatch) {
      std::optional<Item> next = queue_.TryPop();
      if (!next.has_value()) break;
      items.push_back(*std::move(next));
    }
    Handle(std::move(items));
  }
}

void Intake::Handle(std::vector<Item> items) {
  struct Kept {
    WorkId id;
    Item item;
  };
  std::vector<Kept> kept;
  std::vector<SubmittedRow> rows;
  for (Item& item : items) {
    const Admission admission = coordinator_->Admit(item.trajectory);
    if (admission.verdict != v1::SubmitReply::ACCEPTED) {
      item.done(Reply(admission.verdict, {.file = "trajectory",
                                          .field = "id",
                                          .found = admission.problem,
                                          .expected = ""}));
      continue;
    }
    const absl::Status good =
        CheckTrajectory(item.trajectory, admission.order->base, limits_);
    if (!good.ok()) {
      spdlog::warn("trajectory {} of worker {} refused: {}",
                   FormatId(admission.id), item.trajectory.worker(),
                   std::string(good.message()));
      coordinator_->Reject(admission.id, std::string(good.message()));
      item.done(Reply(v1::SubmitReply::REJECTED, ProblemOf(good)));
      continue;
    }
    if (EndedInError(item.trajectory)) {
      const v1::EpisodeError& error = item.trajectory.outcome().error();
      spdlog::error("trajectory {} of worker {} ended in an error{}: {}: {}",
                    FormatId(admission.id), item.trajectory.worker(),
                    admission.keep ? "" : ", and is played again", error.kind(),
                    error.message());
      // What was sampled before the error was not checked.
      item.trajectory.clear_sequences();
    }
    if (!admission.keep) {
      coordinator_->Accept(admission.id, std::move(item.trajectory));
      item.done(Reply(v1::SubmitReply::ACCEPTED));
      continue;
    }
    // Category and source come from the owner of the task order.
    *item.trajectory.mutable_task() = admission.order->task;
    const absl::Status stored = store_->Append(item.trajectory);
    if (!stored.ok()) {
      spdlog::error("{}", std::string(stored.message()));
      coordinator_->Release(admission.id);
      item.done(stored);
      continue;
    }
    rows.push_back({admission.id, item.trajectory.id().attempt(),
                    item.trajectory.worker()});
    kept.push_back({admission.id, std::move(item)});
  }
  if (kept.empty()) return;
  // On the disk before the ledger says so, and both before the worker hears.
  absl::Status entered = store_->Sync();
  if (entered.ok()) {
    KillPoint(KillLabel::kSpoolWritten);
    entered = ledger_->Submit(rows);
    KillPoint(KillLabel::kLedgerCommitted);
  }
  if (!entered.ok()) spdlog::error("{}", std::string(entered.message()));
  for (Kept& k : kept) {
    if (!entered.ok()) {
      coordinator_->Release(k.id);
      k.item.done(entered);
      continue;
    }
    if (EndedInError(k.item.trajectory)) Tell(k.item.trajectory);
    coordinator_->Accept(k.id, std::move(k.item.trajectory));
    k.item.done(Reply(v1::SubmitReply::ACCEPTED));
  }
}

void Intake::Tell(const v1::Trajectory& failed) {
  const v1::EpisodeError& error = failed.outcome().error();
  if (!told_.insert(error.kind()).second) return;
  LogWarning(absl::StrCat("episodes are left out (the first of kind ",
                          error.kind(), "): ", error.message()));
}

}  // namespace atod::learner
