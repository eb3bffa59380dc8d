#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "common/model/arena.h"
#include "common/model/model_config.h"
#include "common/model/torch/cpu_linear.h"
#include "torch/types.h"

namespace atod::model {

// A matrix [out, in] of the arena: y = x W^T.
struct TorchMatrix {
  torch::Tensor weight;
  torch::Tensor gradient;  // float32, of the arena; undefined without gradients
  std::shared_ptr<const CpuLinear> packed;  // null: torch's own product

  // x [rows, in] -> [rows, out]. In grad mode the backward pass adds to
  // `gradient`.
  torch::Tensor operator()(const torch::Tensor& x) const;
};

// gradient += a b, in float32 memory.
void AddProduct(const torch::Tensor& a, const torch::Tensor& b,
                torch::Tensor gradient);

// A vector, or the experts of a layer: autograd's own gradient, which
// AddLeafGradients moves to the arena.
struct TorchLeaf {
  torch::Tensor value;     // requires a gradient where there is room for it
  torch::Tensor gradient;  // float32, of the arena
};

struct TorchLayer {
  TorchLeaf input_norm, q_norm, k_norm, post_norm;
  TorchMatrix qkv;  // [(heads + 2 kv heads) * head_dim, hidden]
  TorchMatrix o;
  TorchMatrix gate_up, down;  // dense feed-forward: [2 ffn, hidden], ...
  // Mixture of experts: [experts, hidden], [experts, 2 width, hidden],
  // [experts, hidden, width].
  TorchLeaf router, experts_gate_up, experts_down;
};

// The weights of a Qwen3 decoder as views of its arena.
class TorchWeights {
 public:
  TorchWeights(const ModelConfig& config, ParameterArena& arena);

  const ModelConfig& config() const { return config_; }
  const std::vector<TorchLayer>& layers() const { return layers_; }
  const TorchMatrix& embedding() const { return embedding_; }
  const TorchMatrix& head() const { return head_; }  // embedding() when tied
  const TorchLeaf& norm() const { return norm_; }

  // Lays frozen matrices out for products on the CPU, where that is faster,
  // mostly in the arena's own memory: it is of no other use until Unpack.
  void Pack();
  void Unpack();
  // Moves the gradients of the leaves to the arena.
  void AddLeafGradients();

 private:
  // Of the layers.
  std::vector<TorchMatrix*> Matrices();

  ModelConfig config_;
  TorchMatrix embedding_, head_;
  TorchLeaf norm_;
  std::vector<TorchLayer> layers_;
  std::vector<TorchLeaf*> leaves_;
};

// cos and sin of every position's angles, [positions, head_dim] in the dtype.
struct Rope {
  Rope(const ModelConfig& config, int64_t positions, torch::Dtype dtype,
       torch::Device device);
  Rope At(const torch::Tensor& positions) const;  // [rows, 1, head_dim]
  torch::Tensor cos, sin;

 private:
  Rope() = default;
};

// Of one layer: q [rows, heads, head_dim] and k, v [rows, kv heads, head_dim],
// q and k rotated -> [rows, heads * head_dim].
using Attention = std::function<torch::Tensor(
    int64_t layer, const torch::Tensor& q, const torch::Tensor& k,
    const torch::Tensor& v)>;

// One block, the same for training, scoring, prefill and decode: x
// [rows, hidden] -> [rows, hidden]. `rope` is At the rows' positions.
torch::Tensor RunBlock(const TorchWeights& weights, int64_t layer,
                       const Rope& rope, const torch::Tensor& x,
                       const Attention& attention);

// All blocks and the final norm.
torch::Tensor RunBlocks(const TorchWeights& weights, const Rope& rope,
                        torch::Tensor x, const Attention& attention);

}  // namespace atod::model
