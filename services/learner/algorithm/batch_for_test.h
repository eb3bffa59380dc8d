#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/rng.h"
#include "services/learner/algorithm/step_batch.h"

namespace atod::learner {

struct TestTurn {
  std::vector<double> student;  // log pi_old
  std::vector<double> teacher;  // log pi_T, as long as student
  bool valid = true;
};

struct TestTrajectory {
  int group = 0;
  double reward = 0;
  std::vector<TestTurn> turns;
};

inline StepBatch MakeBatch(const std::vector<TestTrajectory>& trajectories) {
  StepBatch batch;
  for (const TestTrajectory& trajectory : trajectories) {
    batch.trajectory_id.push_back(absl::StrCat("t", batch.group.size()));
    batch.group.push_back(trajectory.group);
    batch.reward.push_back(trajectory.reward);
    for (size_t k = 0; k < trajectory.turns.size(); ++k) {
      const TestTurn& turn = trajectory.turns[k];
      batch.turn_index.push_back(static_cast<int32_t>(k));
      batch.valid_action.push_back(turn.valid);
      for (auto* column : {&batch.rollout_logprob, &batch.old_logprob})
        column->insert(column->end(), turn.student.begin(), turn.student.end());
      batch.teacher_logprob.insert(batch.teacher_logprob.end(),
                                   turn.teacher.begin(), turn.teacher.end());
      batch.token_begin.push_back(
          static_cast<int32_t>(batch.old_logprob.size()));
    }
    batch.turn_begin.push_back(static_cast<int32_t>(batch.turn_index.size()));
  }
  return batch;
}

// A turn of one token with the given d and h.
inline TestTurn TurnWith(double d, double h) {
  return {.student = {-h}, .teacher = {-h - d}};
}

// A trajectory with turns of these (d, h).
inline TestTrajectory Turns(const std::vector<std::pair<double, double>>& dh) {
  TestTrajectory out;
  for (const auto& [d, h] : dh) out.turns.push_back(TurnWith(d, h));
  return out;
}

// Rewards 10 0 0 10 0 0 0 10, successes of 5 turns and failures of 50.
inline std::vector<TestTrajectory> MixedGroup() {
  std::vector<TestTrajectory> group;
  for (const double r : {10, 0, 0, 10, 0, 0, 0, 10}) {
    group.push_back(
        {.group = 0,
         .reward = r,
         .turns = std::vector<TestTurn>(r > 0 ? 5 : 50, TurnWith(.1, .5))});
  }
  return group;
}

// Groups of `group_size` with uneven lengths, empty responses, invalid actions
// and rewards 0 or 10.
inline std::vector<TestTrajectory> RandomTrajectories(Rng& rng, int groups,
                                                      int group_size,
                                                      int max_turns = 9,
                                                      int max_tokens = 7) {
  std::vector<TestTrajectory> all;
  for (int g = 0; g < groups; ++g) {
    for (int i = 0; i < group_size; ++i) {
      TestTrajectory trajectory{
          .group = g, .reward = 10.0 * rng.Below(2), .turns = {}};
      const int turns = 1 + static_cast<int>(rng.Below(max_turns));
      for (int k = 0; k < turns; ++k) {
        TestTurn turn;
        for (uint64_t t = rng.Below(max_tokens + 1); t > 0; --t) {
          turn.student.push_back(-3 * rng.Uniform());
          turn.teacher.push_back(-3 * rng.Uniform());
        }
        turn.valid = rng.Below(4) > 0;
        trajectory.turns.push_back(turn);
      }
      all.push_back(trajectory);
    }
  }
  return all;
}

// The trajectory of V1: four turns with exact binary fractions.
inline TestTrajectory ReferenceTrajectory() {
  return {.group = 0,
          .reward = 0,
          .turns = {
              {.student = {-0.5, -1}, .teacher = {-0.25, -0.5}},
              {.student = {-0.125}, .teacher = {-2.125}},
              {.student = {-0.25, -0.25, -0.25, -0.25},
               .teacher = {-0.25, -0.5, -0.25, -0.5}},
              {.student = {-0.5, -0.5}, .teacher = {-1, -1.5}},
          }};
}

}  // namespace atod::learner
