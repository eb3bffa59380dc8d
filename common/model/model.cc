#include "common/model/model.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "ATen/Context.h"
#include "ATen/ops/scaled_dot_product_attention.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/rng.h"
#include "common/model/head_logprobs.h"
#include "common/model/packed_score.h"
#include "common/model/torch_status.h"
#include "torch/nn/functional/embedding.h"
#include "torch/utils.h"

namespace atod::model {
namespace {

namespace F = torch::nn::functional;

// Sequences of similar length that share one padded attention call.
struct Bucket {
  int64_t padded = 0;              // longest of them
  std::vector<int64_t> sequences;  // indices
};

// Longest first; a bucket ends where padding would exceed an eighth.
std::vector<Bucket> BucketByLength(const std::vector<int64_t>& cu_seqlens) {
  const int64_t n = static_cast<int64_t>(cu_seqlens.size()) - 1;
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  const auto length = [&](int64_t i) {
    return cu_seqlens[i + 1] - cu_seqlens[i];
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return length(a) > length(b); });
  std::vector<Bucket> buckets;
  for (const int64_t i : order) {
    if (buckets.empty() || length(i) * 8 < buckets.back().padded * 7)
      buckets.push_back({length(i), {}});
    buckets.back().sequences.push_back(i);
  }
  return buckets;
}

// Row gathers between the packed rows and the padded rows of all buckets.
struct Packing {
  std::vector<Bucket> buckets;
  torch::Tensor to_padded;  // int64 [num_padded]: packed row, 0 for padding
  torch::Tensor to_packed;  // int64 [num_tokens]: padded row
};

Packing MakePacking(const std::vector<int64_t>& cu_seqlens,
                    torch::Device device) {
  Packing p{BucketByLength(cu_seqlens), {}, {}};
  std::vector<int64_t> to_padded, to_packed(cu_seqlens.back());
  for (const Bucket& bucket : p.buckets) {
    for (const int64_t s : bucket.sequences) {
      const int64_t length = cu_seqlens[s + 1] - cu_seqlens[s];
      for (int64_t i = 0; i < bucket.padded; ++i) {
        if (i < length)
          to_packed[cu_seqlens[s] + i] = static_cast<int64_t>(to_padded.size());
        to_padded.push_back(i < length ? cu_seqlens[s] + i : 0);
      }
    }
  }
  p.to_padded = torch::tensor(to_padded, torch::kInt64).to(device);
  p.to_packed = torch::tensor(to_packed, torch::kInt64).to(device);
  return p;
}

// [num_tokens, heads, head_dim] each -> [num_tokens, heads * head_dim].
torch::Tensor Attend(const torch::Tensor& q, const torch::Tensor& k,
                     const torch::Tensor& v, const Packing& packing) {
  const int64_t heads = q.size(1), dim = q.size(2);
  const torch::Tensor pq = q.index_select(0, packing.to_padded);
  const torch::Tensor pk = k.index_select(0, packing.to_padded);
  const torch::Tensor pv = v.index_select(0, packing.to_padded);
  std::vector<torch::Tensor> outputs;
  int64_t row = 0;
  for (const Bucket& bucket : packing.buckets) {
    const int64_t n = static_cast<int64_t>(bucket.sequences.size());
    const auto part = [&](const torch::Tensor& t) {
      return t.narrow(0, row, n * bucket.padded)
          .view({n, bucket.padded, heads, dim})
          .transpose(1, 2);
    };
    // Padding lies at the end, where the causal mask already hides it.
    outputs.push_back(at::scaled_dot_product_attention(part(pq), part(pk),
                                                       part(pv), {}, 0.0,
                                                       /*is_causal=*/true)
                          .transpose(1, 2)
                          .reshape({n * bucket.padded, heads * dim}));
    row += n * bucket.padded;
  }
  return (outputs.size() == 1 ? outputs[0] : torch::cat(outputs))
      .index_select(0, packing.to_packed);
}

// Rotates the two halves of every head by its position's angles.
//   x [num_tokens, heads, head_dim]; cos, sin float32 [num_tokens, 1, head_dim]
torch::Tensor Rotate(const torch::Tensor& x, const torch::Tensor& cos,
                     const torch::Tensor& sin) {
  const auto halves = x.chunk(2, -1);
  return x * cos + torch::cat({-halves[1], halves[0]}, -1) * sin;
}

}  // namespace

absl::Status CheckDevice(const std::string& device) {
  if (device == "cpu" || at::hasCUDA()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("device: found ", device,
                   " without a GPU that LibTorch can use, expected a CUDA "
                   "build and a GPU, or device: cpu"));
}

absl::StatusOr<torch::Dtype> ParseDtype(const std::string& dtype) {
  if (dtype == "float32") return torch::kFloat32;
  if (dtype == "bfloat16") return torch::kBFloat16;
  return absl::InvalidArgumentError(
      absl::StrCat("dtype: found ", dtype, ", expected float32 or bfloat16"));
}

std::string DtypeName(torch::Dtype dtype) {
  return dtype == torch::kBFloat16 ? "bfloat16" : "float32";
}

Qwen3Impl::Qwen3Impl(const ModelConfig& config) : config_(config) {
  layers_.resize(config.num_hidden_layers);
  for (const ParameterSpec& spec : ParameterSpecs(config)) {
    const std::vector<std::string> path = absl::StrSplit(spec.name, '.');
    torch::nn::Module* node = this;
    for (size_t i = 0; i + 1 < path.size(); ++i) {
      const auto children = node->named_children();
      const auto* child = children.find(path[i]);
      node = child != nullptr
                 ? child->get()
                 : node->register_module(path[i],
                                         std::make_shared<torch::nn::Module>())
                       .get();
    }
    node->register_parameter(path.back(), torch::zeros(spec.shape));
  }
  const auto all = named_parameters();
  embed_ = all["model.embed_tokens.weight"];
  norm_ = all["model.norm.weight"];
  head_ = config.tie_word_embeddings ? embed_ : all["lm_head.weight"];
  for (size_t i = 0; i < layers_.size(); ++i) {
    const std::string p = absl::StrCat("model.layers.", i, ".");
    layers_[i] = {all[p + "input_layernorm.weight"],
                  all[p + "self_attn.q_proj.weight"],
                  all[p + "self_attn.k_proj.weight"],
                  all[p + "self_attn.v_proj.weight"],
                  all[p + "self_attn.q_norm.weight"],
                  all[p + "self_attn.k_norm.weight"],
                  all[p + "self_attn.o_proj.weight"],
                  all[p + "post_attention_layernorm.weight"],
                  all[p + "mlp.gate_proj.weight"],
                  all[p + "mlp.up_proj.weight"],
                  all[p + "mlp.down_proj.weight"]};
  }
}

std::vector<torch::Tensor> Qwen3Impl::OrderedParameters() const {
  const auto all = named_parameters();
  std::vector<torch::Tensor> ordered;
  for (const ParameterSpec& spec : ParameterSpecs(config_))
    ordered.push_back(all[spec.name]);
  return ordered;
}

torch::Tensor Qwen3Impl::Norm(const torch::Tensor& x,
                              const torch::Tensor& weight) {
  const torch::Tensor f = x.to(torch::kFloat32);
  const torch::Tensor scale =
      torch::rsqrt(f.square().mean(-1, true) + config_.rms_norm_eps);
  return (f * scale).to(x.scalar_type()) * weight;
}

torch::Tensor Qwen3Impl::Forward(const torch::Tensor& tokens,
                                 const std::vector<int64_t>& cu_seqlens) {
  const Packing packing = MakePacking(cu_seqlens, embed_.device());
  std::vector<int64_t> positions;
  positions.reserve(tokens.size(0));
  for (size_t s = 0; s + 1 < cu_seqlens.size(); ++s)
    for (int64_t i = cu_seqlens[s]; i < cu_seqlens[s + 1]; ++i)
      positions.push_back(i - cu_seqlens[s]);
  const int64_t group =
      config_.num_attention_heads / config_.num_key_value_heads;
  const auto shared = [group](const torch::Tensor& x) {
    return group == 1 ? x : x.repeat_interleave(group, 1);
  };
  return Run(tokens, positions,
             [&](int64_t, const torch::Tensor& q, const torch::Tensor& k,
                 const torch::Tensor& v) {
               return Attend(q, shared(k), shared(v), packing);
             });
}

torch::Tensor Qwen3Impl::Run(const torch::Tensor& tokens,
                             const std::vector<int64_t>& positions,
                             const Attention& attention) {
  const int64_t n = tokens.size(0), dim = config_.head_dim;
  const torch::Device device = embed_.device();
  // As transformers: angles in float32.
  const torch::Tensor frequency = torch::reciprocal(
      torch::pow(config_.rope_theta,
                 torch::arange(0, dim, 2, torch::kInt64).to(torch::kFloat32) /
                     static_cast<double>(dim)));
  const torch::Tensor half =
      torch::outer(torch::tensor(positions, torch::kInt64).to(torch::kFloat32),
                   frequency)
          .unsqueeze(1);
  const torch::Tensor angles = torch::cat({half, half}, -1);
  const torch::Dtype dtype = embed_.scalar_type();
  const torch::Tensor cos = angles.cos().to(device, dtype);
  const torch::Tensor sin = angles.sin().to(device, dtype);

  const auto heads_of = [&](const torch::Tensor& x, const torch::Tensor& w,
                            int64_t count) {
    return torch::mm(x, w.t()).view({n, count, dim});
  };
  torch::Tensor x = F::embedding(tokens.to(device), embed_);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const torch::Tensor a = Norm(x, layer.input_norm);
    const torch::Tensor q =
        Rotate(Norm(heads_of(a, layer.q_proj, config_.num_attention_heads),
                    layer.q_norm),
               cos, sin);
    const torch::Tensor k =
        Rotate(Norm(heads_of(a, layer.k_proj, config_.num_key_value_heads),
                    layer.k_norm),
               cos, sin);
    const torch::Tensor v =
        heads_of(a, layer.v_proj, config_.num_key_value_heads);
    x = x + torch::mm(attention(static_cast<int64_t>(i), q, k, v),
                      layer.o_proj.t());
    const torch::Tensor m = Norm(x, layer.post_norm);
    x = x + torch::mm(torch::silu(torch::mm(m, layer.gate_proj.t())) *
                          torch::mm(m, layer.up_proj.t()),
                      layer.down_proj.t());
  }
  return Norm(x, norm_);
}

torch::Tensor Qwen3Impl::Logits(const torch::Tensor& hidden) {
  return torch::mm(hidden, head_.t()).to(torch::kFloat32);
}

SpanLogProbs ScoreSpans(Qwen3& model, const std::vector<ScoredSequence>& batch,
                        float temperature, bool want_entropy) {
  return CanScoreOnCpu(model)
             ? CpuScoreSpans(model, batch, temperature, want_entropy)
             : TorchScoreSpans(model, batch, temperature, want_entropy);
}

SpanLogProbs TorchScoreSpans(Qwen3& model,
                             const std::vector<ScoredSequence>& batch,
                             float temperature, bool want_entropy) {
  std::vector<int64_t> tokens, cu_seqlens{0}, rows, targets;
  for (const ScoredSequence& sequence : batch) {
    for (const TokenSpan& span : sequence.spans) {
      for (uint32_t i = span.begin; i < span.begin + span.length; ++i) {
        rows.push_back(cu_seqlens.back() + i - 1);
        targets.push_back(sequence.tokens.at(i));
      }
    }
    tokens.insert(tokens.end(), sequence.tokens.begin(), sequence.tokens.end());
    cu_seqlens.push_back(static_cast<int64_t>(tokens.size()));
  }
  const torch::Tensor hidden =
      model->Forward(torch::tensor(tokens, torch::kInt64), cu_seqlens);
  const torch::Device device = hidden.device();
  SpanLogProbs result;
  result.logprobs = HeadLogProbs(
      hidden.index_select(0, torch::tensor(rows, torch::kInt64).to(device)),
      model->head(), torch::tensor(targets, torch::kInt64).to(device),
      temperature, want_entropy ? &result.entropy : nullptr);
  return result;
}

absl::StatusOr<Qwen3> InitModel(const ModelConfig& config,
                                const std::string& init, uint64_t seed) {
  if (init != "unit" && init != "hf")
    return absl::InvalidArgumentError(
        absl::StrCat("init: found ", init, ", expected unit or hf"));
  return CatchTorch("init", [&]() -> absl::StatusOr<Qwen3> {
    torch::NoGradGuard no_grad;
    Qwen3 model(config);
    const std::vector<ParameterSpec> specs = ParameterSpecs(config);
    const std::vector<torch::Tensor> parameters = model->OrderedParameters();
    for (size_t i = 0; i < specs.size(); ++i) {
      const std::string& name = specs[i].name;
      if (specs[i].shape.size() == 1) {
        parameters[i].fill_(1);
        continue;
      }
      // A linear layer's fan-in and the embedding's width are both its columns.
      double std = 0.02;
      if (init == "unit") {
        std = 1 / std::sqrt(static_cast<double>(specs[i].shape[1]));
        if (name.ends_with("o_proj.weight") ||
            name.ends_with("down_proj.weight"))
          std *= 0.2;
      }
      Rng rng(MixSeed(seed, i));
      float* data = parameters[i].data_ptr<float>();
      for (int64_t j = 0; j < parameters[i].numel(); ++j)
        data[j] = static_cast<float>(std * rng.Normal());
    }
    return model;
  });
}

}  // namespace atod::model
