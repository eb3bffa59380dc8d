#pragma once

#include <cstdint>
#include <vector>

#include "common/model/language_model.h"
#include "torch/types.h"

namespace atod::model {

// New rows of one sequence in a packed batch.
struct AttentionSegment {
  int64_t row = 0;   // first of its rows in the batch
  int64_t rows = 0;  // at least 1
  // Tokens of the sequence before them. Their keys lie in `region` of the
  // cache, or are `position` rows of this batch from `parent` on (a prefix that
  // several sequences share; after sequences without a region only).
  int64_t position = 0;
  int64_t parent = 0;
  Region region{};
};

// Causal attention of packed sequences, forward and backward: an instance
// belongs to one batch. Keys and values are neither padded nor repeated for
// grouped queries, and a cache is read where it lies.
class Varlen {
 public:
  // `caches`, one a layer [pool rows, 2 kv heads, head_dim] (keys, then
  // values), is not owned and may be null when no segment has a region.
  Varlen(std::vector<AttentionSegment> segments,
         std::vector<torch::Tensor>* caches, torch::Device device);

  // q [rows, heads, head_dim], k and v [rows, kv heads, head_dim] ->
  // [rows, heads * head_dim]. Writes k and v of segments with a region to the
  // layer's cache first.
  torch::Tensor operator()(int64_t layer, const torch::Tensor& q,
                           const torch::Tensor& k,
                           const torch::Tensor& v) const;

 private:
  torch::Tensor OneByOne(int64_t layer, const torch::Tensor& q,
                         const torch::Tensor& k, const torch::Tensor& v) const;
  // Keys and values of segments with a region, to their places.
  void WriteCache(int64_t layer, const torch::Tensor& k,
                  const torch::Tensor& v) const;
  // Of segments of one row with a region, on the CPU.
  void DecodeRows(int64_t layer, const torch::Tensor& q,
                  const torch::Tensor& out) const;
  // All sequences in one call of flash attention: CUDA, half precision.
  torch::Tensor Flash(int64_t layer, const torch::Tensor& q,
                      const torch::Tensor& k, const torch::Tensor& v) const;

  std::vector<AttentionSegment> segments_;
  std::vector<torch::Tensor>* caches_;
  bool all_cached_ = false, none_cached_ = true, no_parents_ = true;
  // On a GPU.
  torch::Tensor cached_rows_;  // int64: rows of the batch that have a region
  torch::Tensor cache_rows_;   // int64: where their keys go
  // Flash only: int32 starts of queries and keys, lengths of the keys.
  torch::Tensor cu_q_, cu_k_, used_k_;
  int64_t max_q_ = 0, max_k_ = 0;
  std::vector<size_t> decoding_;  // segments of one row with a region
};

}  // namespace atod::model
