#include "common/model/torch/blocks.h"

#include <string>
#include <utility>

#include "ATen/ops/_grouped_mm.h"
#include "ATen/ops/rms_norm.h"
#include "absl/strings/str_cat.h"
#include "common/model/torch/row_kernels.h"
#include "common/model/torch/row_ops.h"
#include "torch/csrc/autograd/custom_function.h"
#include "torch/utils.h"

namespace atod::model {
namespace {

// y = x W^T whose weight gradient goes straight to float32 memory of the arena:
// it never lies in the compute dtype for longer than one product.
class MatrixFunction : public torch::autograd::Function<MatrixFunction> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx,
                               const torch::Tensor& x,
                               const torch::Tensor& weight,
                               const torch::Tensor& gradient) {
    ctx->save_for_backward({x, weight});
    // Not a saved variable: every product adds to the same memory.
    ctx->saved_data["gradient"] = gradient;
    return torch::mm(x, weight.t());
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* ctx,
      torch::autograd::variable_list d_outputs) {
    const auto saved = ctx->get_saved_variables();
    const torch::Tensor& dy = d_outputs[0];
    AddProduct(dy.t(), saved[0], ctx->saved_data["gradient"].toTensor());
    return {torch::mm(dy, saved[1]), {}, {}};
  }
};

torch::Tensor Norm(const torch::Tensor& x, const TorchLeaf& weight,
                   double eps) {
  if (x.dim() == 2 && HasRowOps(x, x.size(1)))
    return RowNorm(x, weight.value, eps);
  return at::rms_norm(x, {weight.value.size(0)}, weight.value, eps);
}

// Rotates the two halves of every head by its position's angles.
torch::Tensor Rotate(const torch::Tensor& x, const Rope& rope) {
  const auto halves = x.chunk(2, -1);
  return x * rope.cos + torch::cat({-halves[1], halves[0]}, -1) * rope.sin;
}

torch::Tensor SwiGlu(const torch::Tensor& gate_up) {
  const int64_t width = gate_up.size(1) / 2;
  if (HasRowOps(gate_up, width)) return RowSwiGlu(gate_up);
  return torch::silu(gate_up.narrow(1, 0, width)) *
         gate_up.narrow(1, width, width);
}

// The experts of every token: the most likely ones of a float32 softmax, their
// shares renormalised where the model says so. Tokens are sorted by expert, so
// that an expert's are neighbours; one without tokens has an empty range.
torch::Tensor Experts(const TorchLayer& layer, const ModelConfig& config,
                      const torch::Tensor& x) {
  const int64_t most = config.num_experts_per_tok;
  const torch::Tensor likely = torch::softmax(
      torch::mm(x, layer.router.value.t()).to(torch::kFloat32), -1);
  auto [share, expert] = torch::topk(likely, most, -1);
  if (config.norm_topk_prob) share = share / share.sum(-1, true);
  const torch::Tensor flat = expert.flatten();
  const torch::Tensor order = torch::argsort(flat, /*stable=*/true, 0);
  const torch::Tensor ends =
      torch::searchsorted(flat.index_select(0, order),
                          torch::arange(config.num_experts, flat.options()),
                          /*out_int32=*/true, /*right=*/true);
  const torch::Tensor rows = torch::div(order, most, "floor");
  const torch::Tensor gate_up =
      at::_grouped_mm(x.index_select(0, rows),
                      layer.experts_gate_up.value.transpose(1, 2), ends);
  const torch::Tensor out = at::_grouped_mm(
      SwiGlu(gate_up), layer.experts_down.value.transpose(1, 2), ends);
  const torch::Tensor scaled =
      out *
      share.flatten().index_select(0, order).unsqueeze(1).to(out.scalar_type());
  return torch::zeros_like(x).index_add(0, rows, scaled);
}

torch::Tensor FeedForward(const TorchLayer& layer, const ModelConfig& config,
                          const torch::Tensor& x) {
  if (config.num_experts > 0) return Experts(layer, config, x);
  return layer.down(SwiGlu(layer.gate_up(x)));
}

}  // namespace

void AddProduct(const torch::Tensor& a, const torch::Tensor& b,
                torch::Tensor gradient) {
  if (a.scalar_type() == torch::kFloat32)
    gradient.addmm_(a, b);
  else if (a.is_cuda())
    gradient.add_(at::mm(a, b, torch::kFloat32));
  else
    gradient.add_(torch::mm(a, b));
}

torch::Tensor TorchMatrix::operator()(const torch::Tensor& x) const {
  if (torch::GradMode::is_enabled() && gradient.defined())
    return MatrixFunction::apply(x, weight, gradient);
  if (packed != nullptr) return packed->Apply(x);
  return torch::mm(x, weight.t());
}

TorchWeights::TorchWeights(const ModelConfig& config, ParameterArena& arena)
    : config_(config) {
  const bool with_gradients = arena.gradients.defined();
  size_t next = 0;
  const auto matrix = [&](size_t count) {
    TorchMatrix m{arena.Fused(arena.values, next, count), {}, nullptr};
    if (with_gradients) m.gradient = arena.Fused(arena.gradients, next, count);
    next += count;
    return m;
  };
  const auto leaf = [&](TorchLeaf& out, size_t count,
                        const std::vector<int64_t>& shape) {
    const auto view = [&](const torch::Tensor& flat) {
      return flat
          .narrow(0, arena.offsets()[next],
                  arena.offsets()[next + count] - arena.offsets()[next])
          .view(shape);
    };
    out.value = view(arena.values);
    if (with_gradients) {
      out.value = out.value.detach().requires_grad_(true);
      out.gradient = view(arena.gradients);
    }
    leaves_.push_back(&out);
    next += count;
  };
  const std::vector<int64_t> hidden = {config.hidden_size},
                             head = {config.head_dim};
  embedding_ = matrix(1);
  layers_.resize(config.num_hidden_layers);
  for (TorchLayer& l : layers_) {
    leaf(l.input_norm, 1, hidden);
    l.qkv = matrix(3);
    leaf(l.q_norm, 1, head);
    leaf(l.k_norm, 1, head);
    l.o = matrix(1);
    leaf(l.post_norm, 1, hidden);
    if (const int64_t experts = config.num_experts; experts > 0) {
      const int64_t width = config.moe_intermediate_size;
      leaf(l.router, 1, {experts, config.hidden_size});
      leaf(l.experts_gate_up, 2 * experts,
           {experts, 2 * width, config.hidden_size});
      leaf(l.experts_down, experts, {experts, config.hidden_size, width});
    } else {
      l.gate_up = matrix(2);
      l.down = matrix(1);
    }
  }
  leaf(norm_, 1, hidden);
  head_ = config.tie_word_embeddings ? embedding_ : matrix(1);
}

void TorchWeights::Pack() {
  for (TorchMatrix* m : Matrices())
    m->packed = HasMatrixTiles() ? CpuLinear::AsStored(m->weight)
                                 : CpuLinear::Make(m->weight, true);
  // Rows of a tied head are looked up, too.
  head_.packed = CpuLinear::Make(head_.weight, !config_.tie_word_embeddings);
}

void TorchWeights::Unpack() {
  std::vector<TorchMatrix*> all = Matrices();
  all.push_back(&head_);
  for (TorchMatrix* m : all) {
    if (m->packed != nullptr) m->packed->Restore(m->weight);
    m->packed = nullptr;
  }
}

std::vector<TorchMatrix*> TorchWeights::Matrices() {
  std::vector<TorchMatrix*> out;
  for (TorchLayer& l : layers_)
    for (TorchMatrix* m : {&l.qkv, &l.o, &l.gate_up, &l.down})
      if (m->weight.defined()) out.push_back(m);
  return out;
}

void TorchWeights::AddLeafGradients() {
  torch::NoGradGuard no_grad;
  for (TorchLeaf* l : leaves_) {
    torch::Tensor& gradient = l->value.mutable_grad();
    if (!gradient.defined()) continue;
    l->gradient.add_(gradient);
    gradient.reset();
  }
}

Rope::Rope(const ModelConfig& config, int64_t positions, torch::Dtype dtype,
           torch::Device device) {
  const int64_t dim = config.head_dim;
  // As transformers: angles in float32.
  const torch::Tensor frequency = torch::reciprocal(
      torch::pow(config.rope_theta,
                 torch::arange(0, dim, 2, torch::kInt64).to(torch::kFloat32) /
                     static_cast<double>(dim)));
  const torch::Tensor half = torch::outer(
      torch::arange(positions, torch::kInt64).to(torch::kFloat32), frequency);
  const torch::Tensor angles = torch::cat({half, half}, -1);
  cos = angles.cos().to(device, dtype);
  sin = angles.sin().to(device, dtype);
}

Rope Rope::At(const torch::Tensor& positions) const {
  Rope out;
  out.cos = cos.index_select(0, positions).unsqueeze(1);
  out.sin = sin.index_select(0, positions).unsqueeze(1);
  return out;
}

torch::Tensor RunBlock(const TorchWeights& weights, int64_t layer,
                       const Rope& rope, const torch::Tensor& x,
                       const Attention& attention) {
  const ModelConfig& c = weights.config();
  const TorchLayer& l = weights.layers()[layer];
  const int64_t n = x.size(0), heads = c.num_attention_heads,
                kv_heads = c.num_key_value_heads;
  const torch::Tensor qkv = l.qkv(Norm(x, l.input_norm, c.rms_norm_eps))
                                .view({n, heads + 2 * kv_heads, c.head_dim});
  torch::Tensor q = qkv.narrow(1, 0, heads), k = qkv.narrow(1, heads, kv_heads);
  if (HasRowOps(qkv, c.head_dim)) {
    NormRotate(qkv, heads, kv_heads, l.q_norm.value, l.k_norm.value,
               c.rms_norm_eps, rope.cos, rope.sin);
  } else {
    q = Rotate(Norm(q, l.q_norm, c.rms_norm_eps), rope);
    k = Rotate(Norm(k, l.k_norm, c.rms_norm_eps), rope);
  }
  const torch::Tensor mid =
      x +
      l.o(attention(layer, q, k, qkv.narrow(1, heads + kv_heads, kv_heads)));
  return mid + FeedForward(l, c, Norm(mid, l.post_norm, c.rms_norm_eps));
}

torch::Tensor RunBlocks(const TorchWeights& weights, const Rope& rope,
                        torch::Tensor x, const Attention& attention) {
  const int64_t layers = static_cast<int64_t>(weights.layers().size());
  for (int64_t l = 0; l < layers; ++l)
    x = RunBlock(weights, l, rope, x, attention);
  return Norm(x, weights.norm(), weights.config().rms_norm_eps);
}

}  // namespace atod::model
