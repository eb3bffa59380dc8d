// Kernels around the bodies of common/device/kernels.h. Each body adds in index
// order in one thread, so results equal the CPU's to the bit; a step has some
// thousand turns, so that is parallel enough: reading the log-probs bounds it.
#include "common/device/cuda/advantage_kernels.h"

namespace atod::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarp = 32;

__device__ int32_t GlobalIndex() { return blockIdx.x * kThreads + threadIdx.x; }

// One thread a group.
__global__ void GroupKernel(StatisticsColumns c) {
  const int32_t g = GlobalIndex();
  if (g >= c.groups) return;
  c.flat[g] =
      kernels::NormalizeGroup(c.group_member, kernels::RowsOf(c.group_begin, g),
                              c.group, c.reward, c.grpo);
}

// One thread a turn.
__global__ void TurnKernel(StatisticsColumns c) {
  const int32_t k = GlobalIndex();
  if (k >= c.turns) return;
  kernels::TurnStatistics(c.old_logprob, c.teacher,
                          kernels::RowsOf(c.token_begin, k), &c.d[k], &c.h[k]);
}

// One thread a trajectory.
__global__ void WeightKernel(StatisticsColumns c) {
  const int32_t i = GlobalIndex();
  if (i >= c.trajectories) return;
  c.active[i] =
      kernels::WeighTurns(c.token_begin, kernels::RowsOf(c.turn_begin, i),
                          c.tdur, c.d, c.h, c.d_norm, c.h_norm, c.w);
}

// One warp a turn, one lane a token.
__global__ void CombineKernel(CombineColumns c) {
  const int32_t k = GlobalIndex() / kWarp;
  if (k >= c.turns) return;
  const kernels::Range tokens = kernels::RowsOf(c.token_begin, k);
  for (int32_t t = tokens.begin + threadIdx.x % kWarp; t < tokens.end;
       t += kWarp) {
    const kernels::HybridTerms<double> terms =
        kernels::HybridAdvantage(c.kl_coef, c.weight[c.token_weights ? t : k],
                                 c.signal == nullptr ? 0.0 : c.signal[t],
                                 c.rl_coef, c.group_advantage[k]);
    c.advantage[t] = terms.distillation + terms.reward;
  }
}

int Blocks(int32_t things) { return (things + kThreads - 1) / kThreads; }

}  // namespace

cudaError_t LaunchStatistics(const StatisticsColumns& c, cudaStream_t stream) {
  // A launch of no blocks is an error.
  if (c.groups > 0) GroupKernel<<<Blocks(c.groups), kThreads, 0, stream>>>(c);
  if (c.turns > 0) TurnKernel<<<Blocks(c.turns), kThreads, 0, stream>>>(c);
  if (c.trajectories > 0)
    WeightKernel<<<Blocks(c.trajectories), kThreads, 0, stream>>>(c);
  return cudaGetLastError();
}

cudaError_t LaunchCombine(const CombineColumns& c, cudaStream_t stream) {
  if (c.turns > 0)
    CombineKernel<<<Blocks(c.turns * kWarp), kThreads, 0, stream>>>(c);
  return cudaGetLastError();
}

}  // namespace atod::cuda
