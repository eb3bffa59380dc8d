#include "common/model/torch/attention.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "ATen/Parallel.h"
#include "ATen/ops/_flash_attention_forward.h"
#include "ATen/ops/scaled_dot_product_attention.h"
#include "common/model/torch/row_kernels.h"
#include "common/model/torch/row_ops.h"
#include "torch/utils.h"

namespace atod::model {
namespace {

// One sequence: q [n, heads, dim] at the end of m keys [m, kv heads, dim].
torch::Tensor AttendOne(const torch::Tensor& q, const torch::Tensor& k,
                        const torch::Tensor& v) {
  const int64_t n = q.size(0), heads = q.size(1), dim = q.size(2);
  const int64_t m = k.size(0), kv_heads = k.size(1), group = heads / kv_heads;
  const auto by_head = [](const torch::Tensor& x) {
    return x.transpose(0, 1).unsqueeze(0);
  };
  if (n == 1) {
    // The heads that share keys are the queries of one head: no copies.
    return at::scaled_dot_product_attention(q.view({1, kv_heads, group, dim}),
                                            by_head(k), by_head(v))
        .reshape({1, heads * dim});
  }
  const auto repeated = [&](const torch::Tensor& x) {
    return by_head(group == 1 ? x
                              : x.unsqueeze(2)
                                    .expand({m, kv_heads, group, dim})
                                    .reshape({m, heads, dim}));
  };
  std::optional<torch::Tensor> mask;
  if (n != m)
    mask = torch::ones({n, m}, q.options().dtype(torch::kBool)).tril(m - n);
  return at::scaled_dot_product_attention(by_head(q), repeated(k), repeated(v),
                                          mask, 0.0, /*is_causal=*/n == m)
      .squeeze(0)
      .transpose(0, 1)
      .reshape({n, heads * dim});
}

torch::Tensor OnDevice(const std::vector<int64_t>& x, torch::Dtype dtype,
                       torch::Device device) {
  return torch::tensor(x, torch::kInt64).to(device, dtype);
}

}  // namespace

Varlen::Varlen(std::vector<AttentionSegment> segments,
               std::vector<torch::Tensor>* caches, torch::Device device)
    : segments_(std::move(segments)), caches_(caches) {
  std::vector<int64_t> rows, places, cu_q{0}, cu_k{0}, used;
  for (const AttentionSegment& s : segments_) {
    const bool cached = s.region.rows > 0;
    no_parents_ = no_parents_ && (cached || s.position == 0);
    for (int64_t i = 0; cached && i < s.rows; ++i) {
      rows.push_back(s.row + i);
      places.push_back(s.region.begin + s.position + i);
    }
    cu_q.push_back(s.row + s.rows);
    cu_k.back() = cached ? s.region.begin : s.row;
    cu_k.push_back(cached ? 0 : s.row + s.rows);
    used.push_back(s.position + s.rows);
    max_q_ = std::max(max_q_, s.rows);
    max_k_ = std::max(max_k_, s.position + s.rows);
    if (cached && s.rows == 1) decoding_.push_back(&s - segments_.data());
  }
  none_cached_ = rows.empty();
  all_cached_ =
      !segments_.empty() && static_cast<int64_t>(rows.size()) ==
                                segments_.back().row + segments_.back().rows;
  if (device.is_cpu()) return;
  if (!none_cached_) {
    cached_rows_ = OnDevice(rows, torch::kInt64, device);
    cache_rows_ = OnDevice(places, torch::kInt64, device);
  }
  cu_q_ = OnDevice(cu_q, torch::kInt32, device);
  cu_k_ = OnDevice(cu_k, torch::kInt32, device);
  used_k_ = OnDevice(used, torch::kInt32, device);
}

torch::Tensor Varlen::operator()(int64_t layer, const torch::Tensor& q,
                                 const torch::Tensor& k,
                                 const torch::Tensor& v) const {
  if (!none_cached_) WriteCache(layer, k, v);
  const bool uniform = all_cached_ || (none_cached_ && no_parents_);
  if (q.is_cuda() && q.scalar_type() != torch::kFloat32 && uniform)
    return Flash(layer, q, k, v);
  return OneByOne(layer, q, k, v);
}

void Varlen::WriteCache(int64_t layer, const torch::Tensor& k,
                        const torch::Tensor& v) const {
  torch::Tensor& cache = (*caches_)[layer];
  const int64_t heads = k.size(1);
  if (!cache.is_cpu()) {
    const torch::Tensor kv = torch::cat({k, v}, 1);
    cache.index_copy_(0, cache_rows_,
                      all_cached_ ? kv : kv.index_select(0, cached_rows_));
    return;
  }
  // Neighbours in the batch are neighbours in the cache.
  for (const AttentionSegment& s : segments_) {
    if (s.region.rows == 0) continue;
    const torch::Tensor to =
        cache.narrow(0, s.region.begin + s.position, s.rows);
    to.narrow(1, 0, heads).copy_(k.narrow(0, s.row, s.rows));
    to.narrow(1, heads, heads).copy_(v.narrow(0, s.row, s.rows));
  }
}

void Varlen::DecodeRows(int64_t layer, const torch::Tensor& q,
                        const torch::Tensor& out) const {
  const torch::Tensor& cache = (*caches_)[layer];
  const int64_t heads = q.size(1), dim = q.size(2);
  const int64_t kv_heads = cache.size(1) / 2, group = heads / kv_heads;
  const auto run = [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const T* const from = static_cast<const T*>(q.data_ptr());
    const T* const keys = static_cast<const T*>(cache.data_ptr());
    T* const to = static_cast<T*>(out.data_ptr());
    const auto tasks = static_cast<int64_t>(decoding_.size()) * kv_heads;
    at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> scratch;
      for (int64_t i = begin; i < end; ++i) {
        const AttentionSegment& s = segments_[decoding_[i / kv_heads]];
        const int64_t head = i % kv_heads, rows = s.position + 1;
        const int64_t stride = 2 * kv_heads * dim;
        const T* const first = keys + s.region.begin * stride + head * dim;
        scratch.resize(std::max<size_t>(scratch.size(), group * (rows + dim)));
        AttendHeads<T>({group, dim, rows, stride,
                        from + s.row * q.stride(0) + head * group * dim, first,
                        first + kv_heads * dim,
                        to + s.row * heads * dim + head * group * dim,
                        scratch.data()});
      }
    });
  };
  if (q.scalar_type() == torch::kFloat32)
    run(static_cast<float*>(nullptr));
  else
    run(static_cast<uint16_t*>(nullptr));
}

torch::Tensor Varlen::OneByOne(int64_t layer, const torch::Tensor& q,
                               const torch::Tensor& k,
                               const torch::Tensor& v) const {
  const int64_t width = q.size(1) * q.size(2);
  const bool rows_done = !decoding_.empty() && HasRowOps(q, q.size(2)) &&
                         q.stride(1) == q.size(2) && q.stride(2) == 1;
  torch::Tensor whole;
  if (rows_done) {
    whole = torch::empty({q.size(0), width}, q.options());
    DecodeRows(layer, q, whole);
    if (decoding_.size() == segments_.size()) return whole;
  }
  std::vector<torch::Tensor> out;
  for (const AttentionSegment& s : segments_) {
    if (rows_done && s.rows == 1 && s.region.rows > 0) {
      out.push_back(whole.narrow(0, s.row, 1));
      continue;
    }
    torch::Tensor keys, values;
    if (s.region.rows > 0) {
      const torch::Tensor kv =
          (*caches_)[layer].narrow(0, s.region.begin, s.position + s.rows);
      const int64_t heads = kv.size(1) / 2;
      keys = kv.narrow(1, 0, heads);
      values = kv.narrow(1, heads, heads);
    } else {
      keys = k.narrow(0, s.row, s.rows);
      values = v.narrow(0, s.row, s.rows);
      if (s.position > 0) {
        keys = torch::cat({k.narrow(0, s.parent, s.position), keys});
        values = torch::cat({v.narrow(0, s.parent, s.position), values});
      }
    }
    out.push_back(AttendOne(q.narrow(0, s.row, s.rows), keys, values));
  }
  return out.size() == 1 ? out[0] : torch::cat(out);
}

torch::Tensor Varlen::Flash(int64_t layer, const torch::Tensor& q,
                            const torch::Tensor& k,
                            const torch::Tensor& v) const {
  torch::Tensor keys = k, values = v;
  std::optional<torch::Tensor> used;
  if (all_cached_) {
    const torch::Tensor& cache = (*caches_)[layer];
    const int64_t heads = cache.size(1) / 2;
    keys = cache.narrow(1, 0, heads);
    values = cache.narrow(1, heads, heads);
    used = used_k_;
  }
  return std::get<0>(at::_flash_attention_forward(
                         q, keys, values, cu_q_, cu_k_, max_q_, max_k_, 0.0,
                         /*is_causal=*/true, /*return_debug_mask=*/false,
                         std::nullopt, std::nullopt, std::nullopt, used))
      .flatten(1);
}

}  // namespace atod::model
