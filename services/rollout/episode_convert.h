#pragma once

#include <cstdint>
#include <string>

#include "atod/v1/learner.pb.h"
#include "atod/v1/trajectory.pb.h"
#include "services/rollout/episode.h"

namespace atod::rollout {

// The episode of one sample of a lease.
EpisodeSpec SpecFromLease(const v1::Lease& lease, uint32_t sample,
                          const std::string& run_id);

// What a record does not say about itself.
struct TrajectoryContext {
  v1::WeightVersion version;  // that sampled every token
  uint32_t incarnation = 0;
  std::string worker;
  std::string config_hash;
};

// The proto form of a complete record.
v1::Trajectory ToTrajectory(const EpisodeRecord& record,
                            const TrajectoryContext& context);

}  // namespace atod::rollout
