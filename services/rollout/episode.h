#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "services/envs/environment.h"
#include "services/rollout/engine.h"
#include "services/teacher/teacher_caller.h"

namespace atod::rollout {

// Plain counterparts of atod.v1.Trajectory, field by field; the proto holds
// the documentation. episode_convert.h translates.

enum class Purpose { kTrain, kEval, kCollect };

// What to play.
struct EpisodeSpec {
  uint64_t lease_id = 0;
  std::string run_id;
  uint32_t step = 0;
  uint32_t group = 0;
  uint32_t sample = 0;
  uint32_t attempt = 0;
  Purpose purpose = Purpose::kTrain;
  std::string env;
  std::string split;
  std::string task_id;
  std::string content_hash;  // empty: any
  uint64_t env_seed = 0;
  uint64_t run_seed = 0;
  SamplingParams sampling;
  uint32_t max_turns = 0;  // 0: the environment's default
  std::vector<std::string> replay_actions;
  std::string context;  // text before the prompt of the other context
  std::string layout = "windowed";
  std::vector<std::string> teachers;
  // The weights it is played with (proto: WeightVersion).
  uint32_t weights_incarnation = 0;
  uint64_t weights_number = 0;
  std::string weights_hash;
};

struct TurnRecord {
  uint32_t index = 0;
  bool trainable = true;
  std::string action_text;
  std::string executed_action;
  bool valid = false;
  bool admissible = false;
  float reward = 0;
  std::string anchor_hash;
  uint32_t prompt_tokens = 0;
  uint32_t cut_tokens = 0;
  absl::Duration generate_time;
  absl::Duration env_time;
  absl::Duration teacher_time;
  std::string observation;
};

// Layout `windowed`: one sequence a turn, one span in it.
struct SequenceRecord {
  std::vector<int32_t> tokens;          // prompt, then what was sampled
  std::vector<int32_t> context_tokens;  // prompt under EpisodeSpec::context
  uint32_t turn = 0;
  uint32_t begin = 0;
  uint32_t length = 0;
  std::vector<float> rollout_logprobs;  // [length]
  FinishReason finish = FinishReason::kStop;
  std::vector<teacher::TeacherReply>
      teacher;  // in the order of EpisodeSpec::teachers
};

struct EpisodeRecord {
  EpisodeSpec spec;
  // OK when the record is complete; otherwise the episode could not be played
  // and the rest must not be used.
  absl::Status status;
  // When it ended in an error, with whatever status (proto: EpisodeError).
  std::string error;  // kind; empty otherwise
  std::string error_message;
  std::string category;
  std::vector<SequenceRecord> sequences;
  std::vector<TurnRecord> turns;
  float reward = 0;  // sum over the turns
  bool success = false;
  float score = 0;
  envs::DoneReason done_reason = envs::DoneReason::kNotDone;
  absl::Time started;
  absl::Time ended;
};

}  // namespace atod::rollout
