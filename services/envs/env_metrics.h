#pragma once

#include <string>

#include "absl/status/status.h"
#include "common/metrics/metrics.h"
#include "services/envs/episode_table.h"

namespace atod::envs {

// The atod_envs_* metrics. Thread-safe.
class EnvMetrics : public EpisodeObserver {
 public:
  // `registry` is not owned.
  explicit EnvMetrics(metrics::Registry& registry)
      : registry_(registry),
        episodes_(registry.Gauge(metrics::kEnvsEpisodes)),
        expired_(registry.Counter(metrics::kEnvsExpired)),
        step_seconds_(registry.Histogram(metrics::kEnvsStepSeconds)) {}

  void OnStart(const std::string& env) override {
    registry_.Counter(metrics::kEnvsResets, {{"env", env}}).Increment();
  }
  void OnStep(const std::string& env, absl::Duration took) override {
    registry_.Counter(metrics::kEnvsSteps, {{"env", env}}).Increment();
    step_seconds_.Observe(absl::ToDoubleSeconds(took));
  }
  void OnExpire(size_t episodes) override {
    expired_.Increment(static_cast<double>(episodes));
  }
  void OnSize(size_t episodes) override {
    episodes_.Set(static_cast<double>(episodes));
  }
  void OnError(absl::StatusCode code) {
    registry_
        .Counter(metrics::kEnvsErrors,
                 {{"code", absl::StatusCodeToString(code)}})
        .Increment();
  }

 private:
  metrics::Registry& registry_;
  prometheus::Gauge& episodes_;
  prometheus::Counter& expired_;
  prometheus::Histogram& step_seconds_;
};

}  // namespace atod::envs
