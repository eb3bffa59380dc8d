#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/device/kernels.h"

namespace atod::cuda {

// The columns of AdvantageInput and AdvantageOutput in device memory.
struct AdvantageColumns {
  int32_t groups = 0;
  int32_t trajectories = 0;
  int32_t turns = 0;
  const int32_t* group_begin = nullptr;   // [groups + 1]
  const int32_t* group_member = nullptr;  // [trajectories]
  const double* reward = nullptr;         // [trajectories]
  const int32_t* turn_begin = nullptr;    // [trajectories + 1]
  const int32_t* token_begin = nullptr;   // [turns + 1]
  const double* old_logprob = nullptr;    // [tokens]
  const double* teacher = nullptr;        // [tokens], or null: no teacher
  kernels::TdurOptions tdur;
  double kl_coef = 0;
  double rl_coef = 0;
  uint8_t* flat = nullptr;    // [groups]
  double* grpo = nullptr;     // [trajectories]
  uint8_t* active = nullptr;  // [trajectories]
  double* d = nullptr;        // [turns], as the four that follow
  double* h = nullptr;
  double* d_norm = nullptr;
  double* h_norm = nullptr;
  double* w = nullptr;
  double* advantage = nullptr;  // [tokens]
};

// Enqueues all kernels on `stream`. Returns the error of the launches.
cudaError_t LaunchAdvantages(const AdvantageColumns& columns,
                             cudaStream_t stream);

}  // namespace atod::cuda
