#pragma once

#include "torch/types.h"

namespace atod::model {

// log-softmax(hidden head^T / temperature) at `targets`, float32 [num_rows],
// without ever holding the logits of more than kHeadRows rows: the backward
// pass computes them again.
//   hidden [num_rows, hidden_size], head [vocab_size, hidden_size] of one dtype
//   targets int64 [num_rows]
// `entropy`, unless null, is set to the distributions' entropies in nats,
// differentiable too.
torch::Tensor HeadLogProbs(const torch::Tensor& hidden,
                           const torch::Tensor& head,
                           const torch::Tensor& targets, double temperature,
                           torch::Tensor* entropy);

constexpr int64_t kHeadRows = 1024;

}  // namespace atod::model
