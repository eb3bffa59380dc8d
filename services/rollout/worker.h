#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "atod/v1/learner.pb.h"
#include "common/base/clock.h"
#include "common/base/queue.h"
#include "common/engine/engine.h"
#include "common/metrics/metrics.h"
#include "common/weights/version_store.h"
#include "services/rollout/agent_loop.h"
#include "services/rollout/worker_client.h"

namespace atod::rollout {

// A rollout worker: turns leases into episodes of an AgentLoop and their
// trajectories into submissions. Strict on-policy: a lease starts when its
// weights are installed, and weights are installed when no episode plays.
//
// One thread runs Run and owns engine and loop. The On… methods and Stop are
// thread-safe: they put events into an inbox.
class Worker {
 public:
  struct Options {
    std::string name;
    AgentLoop::Options loop;
    // Puts weights into the engine.
    std::function<absl::Status(const weights::WeightSnapshot&)> install;
    // How long environment servers may leave everything unanswered before the
    // leases go back.
    absl::Duration env_patience = absl::Seconds(120);
  };

  // Nothing is owned.
  Worker(engine::Engine& engine, envs::EnvCaller& envs,
         const Tokenizer& tokenizer, teacher::TeacherCaller* teachers,
         Clock& clock, metrics::Registry& registry, Options options);

  // For WorkerClient and WeightsClient.
  void OnMessage(v1::CoordinatorMessage message);
  void OnWeights(weights::PublishedWeights weights);

  // Plays until the learner drains this worker and all is handed in, or until
  // Stop; leases that are left go back. An error is final: the engine failed,
  // a lease or an environment server is not for this worker, or the reason
  // given to Stop. The learner hears it.
  absl::Status Run(WorkerClient& client);
  void Stop(absl::Status reason = absl::OkStatus());

 private:
  struct Lease {
    v1::Lease lease;
    int next = 0;         // first sample not started
    size_t open = 0;      // samples without a verdict
    std::string failure;  // why it goes back when the rest is handed in
  };
  using Event = std::function<void(Worker&)>;

  absl::Status Play();
  void Post(Event event);
  void Handle(const v1::CoordinatorMessage& message);
  void OnVerdict(uint64_t lease_id, const v1::SubmitReply& reply);
  // Installs weights that wait, when nothing plays.
  absl::Status MaybeInstall();
  // Gives the leases back when the environment servers are silent for too
  // long; then asks from time to time whether one answers.
  absl::Status WatchEnvironments();
  absl::Status StartEpisodes();
  // Whether the lease may be played with the weights held.
  enum class Fit { kPlay, kWait, kTooOld };
  Fit FitOf(const v1::Lease& lease) const;
  void HandIn(v1::Trajectory played);
  // Nothing of the lease will be played any more.
  void Fail(Lease& lease, const std::string& cause, const std::string& reason);
  void Settle(uint64_t lease_id);
  void GiveBackAll(const std::string& reason);
  void PublishState();

  engine::Engine& engine_;
  const Options options_;
  Clock& clock_;
  metrics::Registry& registry_;
  AgentLoop loop_;
  Queue<Event> inbox_;
  WorkerClient* client_ = nullptr;  // during Run

  std::map<uint64_t, Lease> leases_;  // oldest first
  std::optional<weights::PublishedWeights> waiting_;
  v1::WeightVersion held_;  // no root hash: none
  std::string run_id_;
  uint32_t incarnation_ = 0;
  std::string config_hash_;
  bool draining_ = false;
  bool stopped_ = false;
  absl::Status stop_reason_;
  std::string blocked_;     // Beat.blocked
  std::string silent_env_;  // that is asked for while blocked
  absl::Time retry_starts_ = absl::InfinitePast();
};

}  // namespace atod::rollout
