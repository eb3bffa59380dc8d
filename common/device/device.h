#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/device/kernels.h"

namespace atod {

// Both calls take and fill host memory that is not theirs. Offsets have one
// more entry than things and start at 0.

// What group statistics and turn weights are computed from. Items are what the
// group statistics run over: trajectories, or turns.
struct StatisticsInput {
  // Items of group g: group_member[group_begin[g] .. group_begin[g + 1]).
  absl::Span<const int32_t> group_begin;
  absl::Span<const int32_t> group_member;
  absl::Span<const double> reward;  // [items]
  kernels::GroupOptions group;
  absl::Span<const int32_t> turn_begin;      // [trajectories + 1]
  absl::Span<const int32_t> token_begin;     // [turns + 1]
  absl::Span<const double> old_logprob;      // [tokens], nats
  absl::Span<const double> teacher_logprob;  // [tokens], or empty: no teacher
  kernels::TdurOptions tdur;
};

struct StatisticsOutput {
  std::vector<uint8_t> flat;    // [groups] all rewards equal, or a group of 1
  std::vector<double> grpo;     // [items] Eq. 2
  std::vector<uint8_t> active;  // [trajectories] T-DUR's weights, no guard
  std::vector<double> d, h;     // [turns] Eq. 13, 14
  std::vector<double> d_norm, h_norm;  // [turns] Eq. 15
  std::vector<double> w;               // [turns] Eq. 16
};

// What the terms of every token's advantage are.
struct CombineInput {
  absl::Span<const int32_t> token_begin;     // [turns + 1]
  double kl_coef = 0;                        // kappa(s)
  absl::Span<const double> weight;           // [turns] or [tokens]
  bool token_weights = false;                // which of the two
  absl::Span<const double> signal;           // [tokens], or empty: 0
  double rl_coef = 0;                        // rho(s)
  absl::Span<const double> group_advantage;  // [turns]
};

// A device that runs the kernels of this folder; the models themselves choose
// their device through torch. Calls block until the output is in host memory.
// Not thread-safe.
class DeviceBackend {
 public:
  virtual ~DeviceBackend() = default;
  // "cpu" or "cuda:0 (NVIDIA …)".
  virtual std::string name() const = 0;
  // The caller has checked that offsets are monotonous and columns match.
  virtual absl::Status Statistics(const StatisticsInput& input,
                                  StatisticsOutput* output) = 0;
  // `advantage` becomes [tokens].
  virtual absl::Status Combine(const CombineInput& input,
                               std::vector<double>* advantage) = 0;
};

// `device` is "cpu" or "cuda" (as RunConfig.device). "cuda" opens
// libatod_cuda.so from the folder of the running program or its ../lib, else
// by the loader's path; FAILED_PRECONDITION says what is missing: the plugin
// file, a library it needs, a driver or a GPU. NOT_FOUND for another name.
absl::StatusOr<std::unique_ptr<DeviceBackend>> OpenDevice(
    const std::string& device);

}  // namespace atod
