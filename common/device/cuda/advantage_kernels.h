#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/device/kernels.h"

namespace atod::cuda {

// The columns of StatisticsInput and StatisticsOutput in device memory.
struct StatisticsColumns {
  int32_t groups = 0;
  int32_t trajectories = 0;
  int32_t turns = 0;
  const int32_t* group_begin = nullptr;   // [groups + 1]
  const int32_t* group_member = nullptr;  // [items]
  const double* reward = nullptr;         // [items]
  kernels::GroupOptions group;
  const int32_t* turn_begin = nullptr;   // [trajectories + 1]
  const int32_t* token_begin = nullptr;  // [turns + 1]
  const double* old_logprob = nullptr;   // [tokens]
  const double* teacher = nullptr;       // [tokens], or null: no teacher
  kernels::TdurOptions tdur;
  uint8_t* flat = nullptr;    // [groups]
  double* grpo = nullptr;     // [items]
  uint8_t* active = nullptr;  // [trajectories]
  double* d = nullptr;        // [turns], as the four that follow
  double* h = nullptr;
  double* d_norm = nullptr;
  double* h_norm = nullptr;
  double* w = nullptr;
};

// The columns of CombineInput, and its result.
struct CombineColumns {
  int32_t turns = 0;
  const int32_t* token_begin = nullptr;  // [turns + 1]
  double kl_coef = 0;
  const double* weight = nullptr;  // [turns] or [tokens]
  bool token_weights = false;
  const double* signal = nullptr;  // [tokens], or null: 0
  double rl_coef = 0;
  const double* group_advantage = nullptr;  // [turns]
  double* advantage = nullptr;              // [tokens]
};

// Enqueue kernels on `stream`. Return the error of the launches.
cudaError_t LaunchStatistics(const StatisticsColumns& columns,
                             cudaStream_t stream);
cudaError_t LaunchCombine(const CombineColumns& columns, cudaStream_t stream);

}  // namespace atod::cuda
