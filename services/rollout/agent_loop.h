#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "atod/v1/learner.pb.h"
#include "atod/v1/trajectory.pb.h"
#include "common/base/clock.h"
#include "common/base/queue.h"
#include "common/engine/engine.h"
#include "common/metrics/metrics.h"
#include "common/prompt/render.h"
#include "common/tokenizer/tokenizer.h"
#include "services/envs/env_caller.h"
#include "services/teacher/teacher_caller.h"

namespace atod::rollout {

// One sample to play.
struct Assignment {
  v1::Lease lease;
  uint32_t sample = 0;        // of Lease.samples
  v1::WeightVersion weights;  // that the engine holds
  // What the trajectory says besides.
  std::string run_id;
  uint32_t incarnation = 0;
  std::string worker;
  std::string config_hash;
};

// Plays many episodes at once, each at its own pace: renders the prompt, has
// the engine sample a response, gives its text to the environment, and sends
// the finished turn to the teachers while the episode goes on. An episode that
// ends frees its slot at once; its trajectory comes out when the last score is
// in. Layout windowed: a turn is a sequence with a prompt of its own; growing:
// the episode is one sequence of exactly the tokens that were shown and
// sampled, whose keys and values the engine keeps from turn to turn.
//
// One thread owns the loop and its engine and makes all calls, except Wake.
// Replies of environments and teachers arrive on other threads and wait in a
// queue; the owner runs them in Poll. An environment that forgot an episode or
// is gone (its server died) gets it back, or another one gets it, by replaying
// the executed actions; a peer that is away or busy is asked without end, so
// that no death of one loses an episode; env_silence() says for how long. A
// peer's inner fault is tried a few times and then ends the episode.
class AgentLoop {
 public:
  struct Options {
    size_t slots = 64;         // episodes played at once
    uint32_t max_context = 0;  // prompt and response together
    // Part of every Reset's request id: unique among the lives of workers.
    std::string nonce;
    // Wait before a failed call is repeated; doubles up to the second value.
    absl::Duration retry_min = absl::Milliseconds(50);
    absl::Duration retry_max = absl::Seconds(5);
    // So long without any answer of a teacher is said on the terminal.
    absl::Duration teacher_patience = absl::Seconds(120);
  };

  // Nothing is owned. `teachers` may be null when no lease names one.
  AgentLoop(engine::Engine& engine, envs::EnvCaller& envs,
            const Tokenizer& tokenizer, teacher::TeacherCaller* teachers,
            Clock& clock, metrics::Registry& registry, Options options);
  ~AgentLoop();
  AgentLoop(const AgentLoop&) = delete;
  AgentLoop& operator=(const AgentLoop&) = delete;

  // Starts an episode. RESOURCE_EXHAUSTED without a free slot;
  // INVALID_ARGUMENT for a lease that this loop cannot play, whatever its task.
  // The first Add of an environment asks for its description and may block for
  // as long as that call takes; UNAVAILABLE when it is not answered yet.
  absl::Status Add(Assignment play);

  // One round: runs what arrived, then one engine step. Without engine work it
  // blocks until something arrives, an episode is finished or `max_wait` is
  // over. Returns finished trajectories. An error is final: the engine failed,
  // or an environment server does not hold what is played here.
  absl::StatusOr<std::vector<v1::Trajectory>> Poll(absl::Duration max_wait);

  // Makes a blocked Poll return. Thread-safe.
  void Wake();

  // Forgets the episodes of a lease; their trajectories never come out.
  void Cancel(uint64_t lease_id);
  void CancelAll();

  // Since when no environment server has answered any call, InfiniteFuture
  // when the last one was answered, and how it went unanswered.
  struct Silence {
    absl::Time since = absl::InfiniteFuture();
    absl::Status status;
  };
  const Silence& env_silence() const { return env_silence_; }
  // Asks for the description of an environment anew, when no episode lives.
  absl::Status Reach(const std::string& env);

  // Episodes that still play: those that hold a slot and need the weights.
  size_t playing() const { return playing_; }
  // The same plus those that only wait for scores.
  size_t living() const { return episodes_.size(); }
  size_t free_slots() const { return options_.slots - playing_; }

 private:
  struct Episode;
  using Event = absl::AnyInvocable<void(AgentLoop&)>;
  using EventQueue = Queue<Event>;

  absl::StatusOr<const envs::EnvDescription*> Describe(const std::string& env);
  Episode* Find(uint64_t id);
  void Post(absl::Duration delay, Event event);
  absl::Duration Backoff(uint32_t failures) const;
  // True when there were any.
  bool RunEvents();

  // Notes whether a call of the environment made at `asked` was answered.
  void Heard(absl::Time asked, const absl::Status& status);
  // Counts `status` and says whether the episode ends with it.
  bool TooManyFaults(Episode& episode, const absl::Status& status) const;
  void SendReset(Episode& episode);
  void OnReset(uint64_t id, absl::StatusOr<envs::ResetResult> reply);
  // What a reset that rebuilds a lost episode must show.
  absl::Status CheckRebuilt(const Episode& episode,
                            const envs::ResetResult& reply) const;
  void SendStep(Episode& episode);
  void OnStep(uint64_t id, absl::StatusOr<envs::StepResult> reply);
  static bool Grows(const Episode& episode);
  static PromptInputs InputsOf(const Episode& episode);
  // Tokens there are for a prompt.
  uint32_t Room(const Episode& episode) const;
  void StartTurn(Episode& episode);
  // A later turn of an episode that is one sequence.
  void GrowTurn(Episode& episode, const PromptInputs& inputs);
  // Has the engine continue `sequence` and `more`.
  void Ask(Episode& episode, v1::Sequence& sequence, const FittedPrompt& more);
  // The next turn, with what the agent sees.
  v1::Turn& AddTurn(Episode& episode);
  // What there is for prompt and response, for people.
  std::string ContextText(const Episode& episode) const;
  // The next turn has no prompt, as `status` says; OK: an empty one.
  void EndWithoutPrompt(Episode& episode, const absl::Status& status);
  // Tells a person, once.
  void WarnOfCut(const Episode& episode, const v1::Turn& turn);
  void OnGenerated(engine::EngineResult result);
  struct ScoredSpan {
    int sequence, span, teacher;  // of the trajectory, sequence, lease
  };
  void SendScore(Episode& episode, ScoredSpan which);
  void OnScore(uint64_t id, ScoredSpan which, absl::Time sent,
               absl::StatusOr<teacher::TeacherReply> reply);
  void FinishPlay(Episode& episode);
  // The agent cannot go on: the episode ends in an error.
  void EndInError(Episode& episode, const std::string& kind,
                  const std::string& message);
  // The episode ends at once, whatever is outstanding.
  void Fail(Episode& episode, const std::string& kind,
            const absl::Status& status);
  void StopPlaying(Episode& episode);
  // Moves the trajectory out, when nothing is outstanding.
  void MaybeComplete(Episode& episode);
  void Complete(Episode& episode);

  engine::Engine& engine_;
  envs::EnvCaller& envs_;
  const Tokenizer& tokenizer_;
  teacher::TeacherCaller* const teachers_;
  Clock& clock_;
  const Options options_;

  // Shared with replies in flight, which may outlive the loop.
  const std::shared_ptr<EventQueue> events_;
  std::multimap<absl::Time, Event> timers_;
  std::map<std::string, envs::EnvDescription> descriptions_;
  std::unordered_map<uint64_t, std::unique_ptr<Episode>> episodes_;
  std::vector<v1::Trajectory> finished_;
  uint64_t next_id_ = 1;
  size_t playing_ = 0;
  size_t generating_ = 0;  // requests in the engine
  Silence env_silence_;
  absl::Time env_heard_ = absl::InfinitePast();
  absl::Status refused_;  // why Poll fails
  // Since when no teacher has answered, and whether that was said.
  absl::Time teacher_silence_ = absl::InfiniteFuture();
  bool teacher_silent_ = false;
  bool warned_of_cut_ = false;
  bool warned_of_room_ = false;
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& cut_tokens_;
  prometheus::Counter& context_ends_;
  prometheus::Counter& sampled_tokens_;
  prometheus::Counter& engine_seconds_;
  prometheus::Counter& idle_seconds_;
  prometheus::Histogram& batch_rows_;
  prometheus::Histogram& env_seconds_;
  prometheus::Histogram& teacher_seconds_;
};

}  // namespace atod::rollout
