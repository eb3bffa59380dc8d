#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "atod/v1/config.pb.h"
#include "common/base/clock.h"
#include "common/metrics/metrics.h"
#include "common/rpc/server.h"
#include "common/weights/version_store.h"
#include "common/weights/weights_service.h"
#include "services/learner/control_service.h"
#include "services/learner/coordinator.h"
#include "services/learner/intake.h"
#include "services/learner/learner_service.h"
#include "services/learner/run_life.h"
#include "services/learner/run_state.h"

namespace atod::learner {

// What the run is, for workers and for what they hand in.
struct HostedModel {
  std::string arch_hash;
  std::string tokenizer_hash;
  uint32_t vocab_size = 0;
};

// What a learner offers: work and weights to workers, control to people. Owns
// the coordinator and the services over it; the run, which gives it work,
// outlives neither. Thread-safe.
class LearnerHost {
 public:
  // Listens at rpc.learner. `life`, `state`, `registry` and `clock` are not
  // owned and outlive the host.
  static absl::StatusOr<std::unique_ptr<LearnerHost>> Start(
      const v1::RunConfig& config, const HostedModel& model, RunLife& life,
      RunState& state, metrics::Registry& registry, Clock& clock);

  Coordinator& coordinator() { return coordinator_; }
  weights::VersionStore& versions() { return versions_; }
  const std::string& address() const { return server_->address(); }

  // Sends the workers home, waits a little for them to leave, and ends.
  void Drain();

 private:
  LearnerHost(const v1::RunConfig& config, const HostedModel& model,
              RunLife& life, RunState& state, metrics::Registry& registry,
              Clock& clock);
  LearnerServiceImpl::Observers Observers(metrics::Registry& registry);

  Coordinator coordinator_;
  Intake intake_;
  weights::VersionStore versions_;
  LearnerServiceImpl learner_service_;
  ControlServiceImpl control_service_;
  weights::WeightsServiceImpl weights_service_;
  weights::WeightsFetchService fetch_service_;
  std::unique_ptr<rpc::RpcServer> server_;  // last: uses the above
};

}  // namespace atod::learner
