#include "common/model/torch/sampler.h"

#include <algorithm>

#include "ATen/Parallel.h"
#include "common/model/exact/cpu_kernels.h"
#include "common/model/exact/exact_sampler.h"
#include "torch/utils.h"

namespace atod::model {
namespace {

// A column [rows, 1] of one number of every sampling.
template <typename Get>
torch::Tensor Column(const std::vector<Sampling>& samplings,
                     torch::Device device, Get get) {
  std::vector<double> values;
  for (const Sampling& s : samplings) values.push_back(get(s));
  return torch::tensor(values, torch::kFloat64).to(device).unsqueeze(1);
}

// Sets all probabilities p [rows, vocab] (float64) to 0 but for the top-k of a
// row and then the nucleus of what that left; the lower id of equals is first.
torch::Tensor Filter(const torch::Tensor& p, const torch::Tensor& top_k,
                     const torch::Tensor& top_p) {
  const auto [sorted, ids] = torch::sort(p, /*stable=*/true, 1, true);
  const torch::Tensor rank =
      torch::arange(p.size(1), top_k.options()).unsqueeze(0);
  const torch::Tensor kept = sorted * (rank < top_k);
  const torch::Tensor sums = kept.cumsum(1);
  const torch::Tensor total = sums.narrow(1, p.size(1) - 1, 1);
  const torch::Tensor in_nucleus =
      ((sums - kept) < top_p * total) | (top_p >= 1) | (rank == 0);
  return torch::zeros_like(p).scatter_(1, ids, kept * in_nucleus);
}

}  // namespace

std::vector<SampledToken> SampleRowsOnDevice(
    const torch::Tensor& logits, const std::vector<Sampling>& samplings) {
  const torch::Device device = logits.device();
  const int64_t rows = logits.size(0), vocab = logits.size(1);
  const torch::Tensor inv =
      Column(samplings, device, [](const Sampling& s) {
        return s.temperature > 0 ? 1.0f / s.temperature : 1.0f;
      }).to(torch::kFloat32);
  const torch::Tensor scaled = logits * inv;
  const torch::Tensor logprobs = scaled - scaled.logsumexp(1, true);
  torch::Tensor p = logprobs.exp().to(torch::kFloat64);
  if (std::any_of(samplings.begin(), samplings.end(), [&](const Sampling& s) {
        return s.top_p < 1 || (s.top_k > 0 && s.top_k < vocab);
      }))
    p = Filter(p,
               Column(samplings, device,
                      [&](const Sampling& s) {
                        return s.top_k > 0 ? static_cast<double>(s.top_k)
                                           : static_cast<double>(vocab);
                      }),
               Column(samplings, device,
                      [](const Sampling& s) { return double{s.top_p}; }));
  const torch::Tensor sums = p.cumsum(1);
  const torch::Tensor target =
      Column(samplings, device, [](const Sampling& s) { return s.noise; }) *
      sums.narrow(1, vocab - 1, 1);
  // The first sum above the target; a sum that rounds below it: the last token
  // with a probability.
  const torch::Tensor drawn = torch::searchsorted(sums, target, false, true);
  const torch::Tensor last =
      ((p > 0) * torch::arange(vocab, p.options())).argmax(1, true);
  const torch::Tensor greedy = Column(samplings, device, [](const Sampling& s) {
                                 return s.temperature == 0 ? 1.0 : 0.0;
                               }).to(torch::kBool);
  const torch::Tensor ids =
      torch::where(greedy, logits.argmax(1, true), torch::minimum(drawn, last));
  const torch::Tensor chosen = logprobs.gather(1, ids).clamp_max(0);
  // One copy to the host: ids are exact in float64.
  const torch::Tensor both =
      torch::cat({ids.to(torch::kFloat64), chosen.to(torch::kFloat64)}, 1)
          .to(torch::kCPU)
          .contiguous();
  std::vector<SampledToken> out(rows);
  for (int64_t r = 0; r < rows; ++r) {
    const double* row = both.data_ptr<double>() + 2 * r;
    out[r] = {static_cast<int32_t>(row[0]), static_cast<float>(row[1])};
  }
  return out;
}

std::vector<SampledToken> SampleRows(const torch::Tensor& logits,
                                     const std::vector<Sampling>& samplings) {
  if (!logits.is_cpu() || !CpuKernelsSupported())
    return SampleRowsOnDevice(logits, samplings);
  const int64_t vocab = logits.size(1);
  const torch::Tensor rows = logits.contiguous();
  std::vector<SampledToken> out(samplings.size());
  at::parallel_for(
      0, static_cast<int64_t>(out.size()), 1, [&](int64_t begin, int64_t end) {
        thread_local ExactSampler sampler;
        for (int64_t r = begin; r < end; ++r)
          out[r] = sampler.Sample(rows.data_ptr<float>() + r * vocab, vocab,
                                  samplings[r]);
      });
  return out;
}

}  // namespace atod::model
