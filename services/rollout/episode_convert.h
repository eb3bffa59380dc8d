#pragma once

#include <cstdint>
#include <string>

#include "atod/v1/learner.pb.h"
#include "atod/v1/trajectory.pb.h"
#include "services/rollout/episode.h"

namespace atod::rollout {

// The episode of one sample of a lease, played with `weights`.
EpisodeSpec SpecFromLease(const v1::Lease& lease, uint32_t sample,
                          const std::string& run_id,
                          const v1::WeightVersion& weights);

// What a stored trajectory was played from: the inverse of ToTrajectory.
EpisodeSpec SpecFromTrajectory(const v1::Trajectory& trajectory);

// What a record does not say about itself.
struct TrajectoryContext {
  uint32_t incarnation = 0;
  std::string worker;
  std::string config_hash;
};

// The proto form of a complete record.
v1::Trajectory ToTrajectory(const EpisodeRecord& record,
                            const TrajectoryContext& context);

}  // namespace atod::rollout
