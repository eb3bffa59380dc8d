#include "common/model/memory.h"

#include <algorithm>

namespace atod::model {
namespace {

constexpr int64_t kFloat = 4;  // bytes

int64_t Padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

int64_t Elements(const ParameterSpec& spec) {
  int64_t n = 1;
  for (const int64_t d : spec.shape) n *= d;
  return n;
}

// exact/: rows of logits and of attention at a time, tokens of a chunk, parts
// of a batch with a gradient each.
constexpr int64_t kExactLogitRows = 32;
constexpr int64_t kExactQueryRows = 24;
constexpr int64_t kExactChunk = 160;
constexpr int64_t kExactPanel = 16;
constexpr int64_t kExactLarge = 16'000'000;
// torch/head.cc: rows of logits at a time, and of a head that is converted.
constexpr int64_t kTorchHeadRows = 256;
constexpr int64_t kTorchConverted = 16384;

}  // namespace

ModelMemory::ModelMemory(const ModelConfig& config,
                         const MemoryOptions& options)
    : c_(config),
      o_(options),
      layers_(config.num_hidden_layers),
      vocab_(config.vocab_size),
      h_(config.hidden_size),
      q_(config.num_attention_heads * config.head_dim),
      k_(config.num_key_value_heads * config.head_dim),
      f_(config.num_experts > 0
             ? config.num_experts_per_tok * config.moe_intermediate_size
             : config.intermediate_size),
      b_(options.dtype == "bfloat16" ? 2 : kFloat) {
  for (const ParameterSpec& spec : ParameterSpecs(config)) {
    const int64_t n = Elements(spec);
    parameters_ += n;
    // torch/blocks.h: TorchLeaf.
    if (spec.shape.size() != 2 || spec.name.ends_with("mlp.gate.weight"))
      leaves_ += n;
    else if (spec.shape[0] != vocab_)
      body_ += n;
  }
}

uint64_t ModelMemory::Values() const { return b_ * Padded(parameters_, 128); }

uint64_t ModelMemory::Masters() const {
  return o_.gradients && b_ != kFloat ? kFloat * Padded(parameters_, 128) : 0;
}

uint64_t ModelMemory::Gradients() const {
  return o_.gradients ? kFloat * Padded(parameters_, 128) : 0;
}

uint64_t ModelMemory::Layout() const {
  const int64_t head = h_ * Padded(vocab_, kExactPanel);
  if (o_.exact) {
    // Norms, panels of all matrices (and of their transposes).
    int64_t floats = leaves_ + body_ + head;
    if (o_.gradients) floats += body_ + vocab_ * Padded(h_, kExactPanel);
    return kFloat * (floats + o_.max_context * c_.head_dim);
  }
  const uint64_t angles = 2 * b_ * o_.max_context * c_.head_dim;
  // Packed matrices lie in the values' own memory, but for a head whose rows
  // are looked up, too.
  return angles + (Packs() && c_.tie_word_embeddings ? b_ * head : 0);
}

bool ModelMemory::Packs() const {
  return !o_.exact && !o_.cuda && !o_.gradients && b_ == 2;
}

uint64_t ModelMemory::CacheRow() const { return layers_ * 2 * k_ * b_; }

// How exact/exact_score.cc cuts a pass of equal sequences.
struct ModelMemory::Chunks {
  int64_t count, rows, outputs, at_once;
};

ModelMemory::Chunks ModelMemory::ChunksOf(const PassShape& pass) const {
  const int64_t longest = std::max<int64_t>(1, pass.longest);
  const int64_t sequences = std::max<int64_t>(1, pass.tokens / longest);
  const int64_t together =
      std::clamp<int64_t>(kExactChunk / longest, 1, sequences);
  Chunks out;
  out.count = (sequences + together - 1) / together;
  out.rows = together * longest;
  out.outputs = (pass.outputs + out.count - 1) / out.count;
  const bool few = parameters_ > kExactLarge && out.count < o_.threads;
  out.at_once = few ? 1 : std::min(o_.threads, out.count);
  return out;
}

uint64_t ModelMemory::ExactLayer(int64_t rows, int64_t queries) const {
  return kFloat * (rows * (h_ + 2 * k_) + queries * (2 * q_ + h_ + 2 * f_));
}

// Scratch of one chunk, without its activations.
uint64_t ModelMemory::ExactForward(const PassShape& pass, int64_t rows,
                                   int64_t outputs) const {
  const int64_t longest = Padded(pass.longest, kExactPanel);
  return kFloat * (rows * (2 * h_ + q_ + k_ + f_) +
                   o_.threads * kExactQueryRows * longest + 2 * longest * k_ +
                   outputs * h_ + kExactLogitRows * vocab_);
}

uint64_t ModelMemory::ExactScore(const PassShape& pass) const {
  const Chunks chunks = ChunksOf(pass);
  return chunks.at_once * (ExactForward(pass, chunks.rows, chunks.outputs) +
                           2 * ExactLayer(chunks.rows, chunks.rows) +
                           ExactLayer(chunks.rows, chunks.outputs) +
                           kFloat * chunks.outputs * h_);
}

uint64_t ModelMemory::Tapes(const PassShape& pass) const {
  if (!o_.exact || !o_.gradients) return 0;
  const Chunks chunks = ChunksOf(pass);
  return chunks.count * ((layers_ - 1) * ExactLayer(chunks.rows, chunks.rows) +
                         ExactLayer(chunks.rows, chunks.outputs) +
                         kFloat * chunks.outputs * h_);
}

uint64_t ModelMemory::ExactBackward(const PassShape& pass) const {
  const Chunks chunks = ChunksOf(pass);
  const int64_t n = chunks.rows;
  const int64_t parts =
      std::min<int64_t>(parameters_ > kExactLarge ? 2 : 8, chunks.count);
  const int64_t widest = std::max({h_, q_, f_});
  const int64_t longest = Padded(pass.longest, kExactPanel);
  const uint64_t back =
      kFloat * (n * (5 * h_ + 3 * q_ + 3 * k_ + 4 * f_ + widest) +
                2 * kExactQueryRows * longest + 3 * longest * c_.head_dim +
                chunks.outputs * h_ + kExactLogitRows * vocab_);
  // The hidden states that are scored; a gradient a part.
  return kFloat * (pass.outputs * h_ + parts * parameters_) +
         std::min(o_.threads, parts) * back;
}

// Rows of one layer that live at once (torch/blocks.cc), and the head.
uint64_t ModelMemory::TorchForward(const PassShape& pass) const {
  // torch/row_ops.h, on a CPU with AVX-512: rotated in place, SwiGLU in one.
  const bool rows = !o_.cuda && !o_.gradients;
  // The stream, q|k|v (and q and k rotated), the stream behind attention and
  // its norm; angles and ids.
  const uint64_t held =
      b_ * (rows ? 3 * h_ + q_ + 2 * k_ : 4 * h_ + 2 * q_ + 3 * k_) +
      b_ * 2 * c_.head_dim + 24;
  // gate|up, SiLU and product.
  uint64_t feed = b_ * (rows ? 3 * f_ + h_ : 4 * f_);
  if (c_.num_experts > 0)
    feed = b_ * (4 * f_ + 3 * c_.num_experts_per_tok * h_) + 8 * c_.num_experts;
  const uint64_t attention = b_ * (rows ? 2 * q_ : 2 * q_ + h_);
  const bool repeats = !o_.cuda && q_ != k_;
  return pass.tokens * (held + std::max(feed, attention)) +
         (repeats ? 2 * b_ * q_ * pass.longest : 0);
}

uint64_t ModelMemory::TorchHead(const PassShape& pass) const {
  const int64_t rows = std::min(kTorchHeadRows, pass.outputs);
  const bool converts = !o_.cuda && b_ == 2 && o_.gradients;
  const int64_t piece = std::min(kTorchConverted, vocab_);
  return pass.outputs * b_ * h_ + 2 * kFloat * rows * vocab_ +
         (converts ? kFloat * piece * (h_ + rows) : 0);
}

uint64_t ModelMemory::TorchKept() const {
  const int64_t keys = o_.cuda || q_ == k_ ? k_ : q_;  // repeated, on the CPU
  // q, keys and values, output twice (of sequences, and packed); its sums.
  const uint64_t attention =
      b_ * (3 * q_ + 2 * keys) + kFloat * c_.num_attention_heads;
  uint64_t norms;
  if (o_.cuda)  // fused: input and output
    norms = 4 * b_ * h_ + b_ * (q_ + 2 * k_);
  else  // float32 input, normed, output
    norms = 2 * (kFloat + 2 * b_) * h_ + (kFloat + b_) * (q_ + k_) +
            (b_ == kFloat ? kFloat * k_ : 0);
  const uint64_t experts =
      c_.num_experts > 0
          ? 2 * b_ * c_.num_experts_per_tok * h_ + 2 * kFloat * c_.num_experts
          : 0;
  return norms + attention + 4 * b_ * f_ + experts;
}

uint64_t ModelMemory::TorchTrain(const PassShape& pass) const {
  const uint64_t kept =
      pass.tokens * (layers_ * TorchKept() + b_ * (2 * h_ + 2 * c_.head_dim) +
                     (kFloat + 2 * b_) * h_ + 24);
  // The backward pass: the head's logits and their product with the hidden
  // states before it is added, then a layer's feed-forward.
  const uint64_t product =
      b_ == kFloat ? 0 : (o_.cuda ? kFloat : b_) * vocab_ * h_;
  const uint64_t head = TorchHead(pass) + product;
  const uint64_t layer = pass.tokens * b_ * (7 * f_ + 4 * h_);
  return kept + std::max(head, layer) + b_ * leaves_;
}

uint64_t ModelMemory::Score(const PassShape& pass) const {
  return o_.exact ? ExactScore(pass)
                  : std::max(TorchForward(pass),
                             pass.tokens * b_ * 2 * h_ + TorchHead(pass));
}

uint64_t ModelMemory::Step(const PassShape& pass) const {
  if (!o_.exact) return Score(pass);
  // Chunks of an engine have no scratch for keys, and sample all at once.
  const int64_t rows = std::min(
      std::max<int64_t>(pass.tokens / std::max<int64_t>(o_.threads, 1), 16),
      std::max(kExactChunk, pass.longest));
  const int64_t chunk = std::min(rows, pass.tokens);
  const int64_t outputs = std::min(pass.outputs, chunk);
  return o_.threads *
         (ExactForward(pass, chunk, outputs) + 2 * ExactLayer(chunk, chunk) +
          ExactLayer(chunk, outputs) + kFloat * outputs * (h_ + vocab_));
}

uint64_t ModelMemory::Train(const PassShape& pass) const {
  return o_.exact ? ExactBackward(pass) : TorchTrain(pass);
}

}  // namespace atod::model
