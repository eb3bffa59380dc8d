#pragma once

#include "common/model/torch/blocks.h"
#include "torch/types.h"

namespace atod::model {

// Rows of float32 logits that exist at a time.
inline constexpr int64_t kHeadRows = 256;

// Float32 logits hidden head^T of the rows, summed in float32 whatever the
// dtype: rounded to bfloat16 they would be steps of 0.125 apart at 16 to 32.
//   hidden [rows, hidden_size] -> [rows, vocab_size]
torch::Tensor HeadLogits(const torch::Tensor& hidden, const TorchMatrix& head);

struct HeadOutput {
  // log-softmax(logits / temperature) at the targets, float32 [rows].
  torch::Tensor logprobs;
  torch::Tensor entropy;  // nats, float32 [rows]; undefined unless wanted
  // [rows, top_k] int64 and float32; undefined unless wanted.
  torch::Tensor top_ids, top_logprobs;
};

// The head on wanted rows, kHeadRows at a time. targets int64 [rows].
// Differentiable in `hidden` in grad mode (then without top_k): the backward
// pass computes the logits again and adds to head.gradient.
HeadOutput RunHead(const torch::Tensor& hidden, const TorchMatrix& head,
                   const torch::Tensor& targets, double temperature,
                   bool want_entropy, int64_t top_k);

}  // namespace atod::model
