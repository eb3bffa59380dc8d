#include "services/learner/learner_host.h"

#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/config/values.h"
#include "common/rpc/address.h"

namespace atod::learner {
namespace {

// How long workers get to leave after the last step.
constexpr absl::Duration kDrain = absl::Seconds(5);
// And calls, after their streams ended.
constexpr absl::Duration kShutdown = absl::Seconds(2);

CoordinatorOptions OptionsOf(const v1::RunConfig& config,
                             const HostedModel& model, uint32_t incarnation) {
  CoordinatorOptions options;
  options.run_id = config.name();
  options.incarnation = incarnation;
  options.config_yaml = config::ResolvedYaml(config);
  options.model.set_arch_hash(model.arch_hash);
  options.model.set_tokenizer_hash(model.tokenizer_hash);
  options.settings = config::PlaySettings(config);
  options.beat_seconds = static_cast<float>(config.rollout().beat_seconds());
  options.grace = absl::Seconds(config.rollout().grace_seconds());
  options.silent = absl::Seconds(config.rollout().silent_seconds());
  options.max_tries = static_cast<int>(config.env().max_tries());
  return options;
}

}  // namespace

LearnerHost::LearnerHost(const v1::RunConfig& config, const HostedModel& model,
                         RunLife& life, RunState& state,
                         metrics::Registry& registry, Clock& clock)
    : coordinator_(OptionsOf(config, model, life.incarnation), &clock),
      intake_(&coordinator_, life.ledger.get(), life.store.get(),
              TrajectoryLimits{model.vocab_size, config.model().max_context()}),
      learner_service_(coordinator_, intake_, Observers(registry)),
      control_service_(config.name(), life.incarnation, state, coordinator_,
                       *life.ledger),
      weights_service_(versions_),
      fetch_service_(versions_) {}

absl::StatusOr<std::unique_ptr<LearnerHost>> LearnerHost::Start(
    const v1::RunConfig& config, const HostedModel& model, RunLife& life,
    RunState& state, metrics::Registry& registry, Clock& clock) {
  std::unique_ptr<LearnerHost> host(
      new LearnerHost(config, model, life, state, registry, clock));
  ATOD_ASSIGN_OR_RETURN(
      const std::string address,
      rpc::ListenAddress(config.rpc().bind(), config.rpc().learner(),
                         "rpc.learner"));
  ATOD_ASSIGN_OR_RETURN(host->server_,
                        rpc::Listen({.address = address,
                                     .services = {&host->learner_service_,
                                                  &host->control_service_,
                                                  &host->weights_service_},
                                     .generic = &host->fetch_service_,
                                     .security = rpc::Security(config.rpc())}));
  return host;
}

LearnerServiceImpl::Observers LearnerHost::Observers(
    metrics::Registry& registry) {
  return {.on_verdict =
              [&registry](v1::SubmitReply::Verdict verdict) {
                registry
                    .Counter(
                        metrics::kLearnerTrajectories,
                        {{"verdict", v1::SubmitReply::Verdict_Name(verdict)}})
                    .Increment();
              },
          .on_tick =
              [this, &registry] {
                registry.Gauge(metrics::kLearnerWorkers)
                    .Set(coordinator_.connected());
                registry.Gauge(metrics::kLearnerInFlight)
                    .Set(static_cast<double>(coordinator_.totals().leased));
              }};
}

void LearnerHost::Drain() {
  coordinator_.Drain();
  coordinator_.WaitEmpty(kDrain);
  learner_service_.EndStreams();
  control_service_.EndStreams();
  server_->Shutdown(kShutdown);
}

}  // namespace atod::learner
