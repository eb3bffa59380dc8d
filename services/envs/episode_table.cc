#include "services/envs/episode_table.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace atod::envs {
namespace {

// Tells the ids of one life of a server from those of the next.
std::string RandomPrefix() {
  std::random_device device;
  const uint64_t bits = (static_cast<uint64_t>(device()) << 32) | device();
  return absl::StrCat(absl::Hex(bits, absl::kZeroPad16), "-");
}

// Whether these are the games that the caller means.
absl::Status CheckContent(const ResetRequest& request,
                          const EnvDescription& here) {
  const std::string& name = request.options.split;
  const auto split =
      std::find_if(here.splits.begin(), here.splits.end(),
                   [&](const SplitInfo& s) { return s.name == name; });
  if (split != here.splits.end() &&
      (request.content_hash.empty() ||
       request.content_hash == split->content_hash))
    return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "content_hash of ", request.env, "/", name, ": found ",
      split == here.splits.end() ? "no such split" : split->content_hash,
      ", expected ",
      request.content_hash.empty() ? "a split of this name"
                                   : request.content_hash,
      " (for ", request.options.task_id, ")"));
}

}  // namespace

EpisodeTable::EpisodeTable(EnvironmentMap envs, absl::Duration lease,
                           Clock* clock, EpisodeObserver* observer)
    : envs_(std::move(envs)),
      lease_(lease),
      clock_(clock),
      observer_(observer),
      id_prefix_(RandomPrefix()),
      next_sweep_(clock->Now()) {}

absl::StatusOr<ResetResult> EpisodeTable::Reset(const ResetRequest& request) {
  std::shared_ptr<Entry> entry;
  std::string id;
  {
    absl::MutexLock lock(&mutex_);
    DropExpired();
    if (!request.request_id.empty()) {
      const auto it = requests_.find(request.request_id);
      if (it != requests_.end()) {
        id = it->second;
        entry = episodes_[id];
        entry->deadline = clock_->Now() + lease_;
      }
    }
    if (entry == nullptr) {
      id = absl::StrCat(id_prefix_, next_id_++);
      entry = std::make_shared<Entry>();
      entry->request_id = request.request_id;
      entry->env = request.env;
      entry->deadline = clock_->Now() + lease_;
      episodes_[id] = entry;
      if (!request.request_id.empty()) requests_[request.request_id] = id;
      if (observer_ != nullptr) observer_->OnSize(episodes_.size());
    }
  }
  absl::Status started;
  {
    absl::MutexLock lock(&entry->mutex);
    if (entry->episode == nullptr && entry->started.ok()) {
      entry->started = Start(request, *entry);
      entry->reset.episode_id = id;
    }
    if (entry->started.ok()) return entry->reset;
    started = entry->started;
  }
  absl::MutexLock lock(&mutex_);
  Drop(id);
  return started;
}

absl::Status EpisodeTable::Start(const ResetRequest& request, Entry& entry) {
  const auto env = envs_.find(request.env);
  if (env == envs_.end())
    return absl::FailedPreconditionError(
        absl::StrCat("no environment '", request.env, "' here"));
  ATOD_RETURN_IF_ERROR(CheckContent(request, env->second->description()));
  ATOD_ASSIGN_OR_RETURN(entry.episode, env->second->Start(request.options));
  entry.reset.first = entry.episode->observation();
  for (const std::string& action : request.replay_actions) {
    entry.last = entry.episode->StepAction(action);
    entry.reset.replayed.push_back(entry.last);
    ++entry.turns;
  }
  if (observer_ != nullptr) observer_->OnStart(entry.env);
  return absl::OkStatus();
}

absl::StatusOr<StepResult> EpisodeTable::Step(const std::string& episode_id,
                                              uint32_t turn_index,
                                              Input input) {
  std::shared_ptr<Entry> entry;
  {
    absl::MutexLock lock(&mutex_);
    DropExpired();
    const auto it = episodes_.find(episode_id);
    if (it == episodes_.end())
      return absl::NotFoundError(
          absl::StrCat("no episode '", episode_id, "' here"));
    entry = it->second;
    entry->deadline = clock_->Now() + lease_;
  }
  absl::MutexLock lock(&entry->mutex);
  if (entry->episode == nullptr)
    return absl::NotFoundError(
        absl::StrCat("no episode '", episode_id, "' here"));
  if (entry->turns > 0 && turn_index == entry->turns - 1) return entry->last;
  if (turn_index != entry->turns)
    return absl::FailedPreconditionError(
        absl::StrCat("found turn_index ", turn_index, " of episode '",
                     episode_id, "', expected ", entry->turns));
  const absl::Time begin = absl::Now();
  entry->last = input.is_action ? entry->episode->StepAction(input.text)
                                : entry->episode->StepText(input.text);
  ++entry->turns;
  if (observer_ != nullptr) observer_->OnStep(entry->env, absl::Now() - begin);
  return entry->last;
}

std::vector<std::string> EpisodeTable::KeepAlive(
    const std::vector<std::string>& ids) {
  std::vector<std::string> unknown;
  absl::MutexLock lock(&mutex_);
  DropExpired();
  for (const std::string& id : ids) {
    const auto it = episodes_.find(id);
    if (it == episodes_.end())
      unknown.push_back(id);
    else
      it->second->deadline = clock_->Now() + lease_;
  }
  return unknown;
}

void EpisodeTable::Close(const std::vector<std::string>& ids) {
  absl::MutexLock lock(&mutex_);
  for (const std::string& id : ids) Drop(id);
  DropExpired();
}

size_t EpisodeTable::size() const {
  absl::MutexLock lock(&mutex_);
  return episodes_.size();
}

void EpisodeTable::Drop(const std::string& id) {
  const auto it = episodes_.find(id);
  if (it == episodes_.end()) return;
  const auto request = requests_.find(it->second->request_id);
  if (request != requests_.end() && request->second == id)
    requests_.erase(request);
  episodes_.erase(it);
  if (observer_ != nullptr) observer_->OnSize(episodes_.size());
}

void EpisodeTable::DropExpired() {
  const absl::Time now = clock_->Now();
  if (now < next_sweep_) return;
  std::vector<std::string> expired;
  for (const auto& [id, entry] : episodes_)
    if (entry->deadline < now) expired.push_back(id);
  for (const std::string& id : expired) Drop(id);
  if (observer_ != nullptr && !expired.empty())
    observer_->OnExpire(expired.size());
  // An expired episode outlives its lease by a tenth of it at most.
  next_sweep_ = now + lease_ / 10;
}

}  // namespace atod::envs
