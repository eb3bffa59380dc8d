#include "common/model/packed_score.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "common/model/cpu_decoder.h"
#include "common/model/cpu_kernels.h"
#include "torch/csrc/autograd/custom_function.h"

namespace atod::model {
namespace {

// Tokens that run through all layers together: their activations fit into a
// core's cache.
constexpr int64_t kChunkTokens = 160;
// Parts of a batch with a gradient buffer each. A fixed number, so that sums
// do not depend on the number of threads.
constexpr int64_t kParts = 8;
// Above this many parameters the gradient buffers would cost more than they
// save.
constexpr int64_t kMostParameters = 16'000'000;
constexpr size_t kMostSpareTapes = 1024;
// Rows of logits that exist at a time.
constexpr int64_t kLogitRows = 32;

// Consecutive sequences, and what the backward pass needs of them.
struct Chunk {
  std::vector<CpuSegment> segments;
  std::vector<int32_t> targets;  // one an output
  int64_t first = 0;             // of its outputs in the batch
  FloatBuffer hidden;            // [outputs, hidden_size], with gradients only
  FloatBuffer lse;               // [outputs]
  CpuTape tape;
};

// A batch cut into chunks.
struct Plan {
  std::vector<Chunk> chunks;
  int64_t num_scored = 0;
  int64_t longest = 0;
};

Plan MakePlan(const std::vector<ScoredSequence>& batch) {
  Plan plan;
  int64_t in_chunk = 0;
  for (const ScoredSequence& sequence : batch) {
    const int64_t length = static_cast<int64_t>(sequence.tokens.size());
    plan.longest = std::max(plan.longest, length);
    if (plan.chunks.empty() || in_chunk + length > kChunkTokens) {
      plan.chunks.emplace_back();
      plan.chunks.back().first = plan.num_scored;
      in_chunk = 0;
    }
    in_chunk += length;
    Chunk& chunk = plan.chunks.back();
    CpuSegment segment;
    segment.tokens = sequence.tokens.data();
    for (const TokenSpan& span : sequence.spans) {
      for (uint32_t i = span.begin; i < span.begin + span.length; ++i) {
        segment.outputs.push_back(static_cast<int32_t>(i) - 1);
        chunk.targets.push_back(sequence.tokens.at(i));
        ++plan.num_scored;
      }
    }
    // Nothing after the last scored token matters.
    segment.num_tokens = segment.outputs.empty()
                             ? 0
                             : *std::max_element(segment.outputs.begin(),
                                                 segment.outputs.end()) +
                                   1;
    chunk.segments.push_back(std::move(segment));
  }
  return plan;
}

// Memory that a thread keeps between calls.
FloatBuffer& Workspace() {
  thread_local FloatBuffer workspace;
  return workspace;
}

// Tapes of finished passes, for the next one: fresh memory costs page faults.
// Used by the thread that trains only.
std::vector<FloatBuffer>& SpareTapes() {
  thread_local std::vector<FloatBuffer> spare;
  return spare;
}

// Calls f(begin, end) on the chunks of every part, in parallel.
template <typename F>
void ForEachPart(const Plan& plan, F f) {
  const int64_t n = static_cast<int64_t>(plan.chunks.size());
  at::parallel_for(0, kParts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part)
      f(part, n * part / kParts, n * (part + 1) / kParts);
  });
}

void ScoreForward(const CpuDecoder& decoder, Plan& plan, float temperature,
                  bool keep, float* logprobs, float* entropy) {
  const int64_t vocab = decoder.config().vocab_size;
  const int64_t width = decoder.config().hidden_size;
  const float inv = 1.0f / temperature;
  ForEachPart(plan, [&](int64_t, int64_t begin, int64_t end) {
    FloatBuffer hidden_scratch, logits(kLogitRows * vocab);
    for (int64_t c = begin; c < end; ++c) {
      Chunk& chunk = plan.chunks[c];
      const int64_t outputs = static_cast<int64_t>(chunk.targets.size());
      if (outputs == 0) continue;
      FloatBuffer& hidden = keep ? chunk.hidden : hidden_scratch;
      hidden.resize(outputs * width);
      decoder.Forward(chunk.segments, Workspace(), keep ? &chunk.tape : nullptr,
                      hidden.data());
      if (keep) chunk.lse.resize(outputs);
      for (int64_t i = 0; i < outputs; i += kLogitRows) {
        const int64_t rows = std::min(kLogitRows, outputs - i);
        decoder.Logits(rows, &hidden[i * width], logits.data());
        for (int64_t r = 0; r < rows; ++r) {
          const float* row = &logits[r * vocab];
          const float lse = LogSumExp(vocab, row, inv);
          // Rounding may put the log-prob of a sure token above 0.
          logprobs[chunk.first + i + r] =
              std::min(row[chunk.targets[i + r]] * inv - lse, 0.0f);
          if (keep) chunk.lse[i + r] = lse;
          if (entropy != nullptr)
            entropy[chunk.first + i + r] = Entropy(vocab, row, inv, lse);
        }
      }
    }
  });
}

// x[j] = -p_j (g + e (log p_j + entropy)) with log p_j = x[j] * inv - lse: the
// part of the gradient that all logits of a row have.
void RowGradient(int64_t n, float inv, float lse, float g, float e,
                 float entropy, float* x) {
  for (int64_t j = 0; j < n; ++j) {
    const float logp = x[j] * inv - lse;
    x[j] = -std::exp(logp) * (g + e * (logp + entropy));
  }
}

// The sum over parts of the gradients of all parameters. `d_entropy` may be
// null; `entropy` is the forward pass's.
FloatBuffer ScoreBackward(const CpuDecoder& decoder, Plan& plan,
                          float temperature, const float* d_logprobs,
                          const float* d_entropy, const float* entropy) {
  const int64_t vocab = decoder.config().vocab_size;
  const int64_t width = decoder.config().hidden_size;
  const float inv = 1.0f / temperature;
  std::vector<FloatBuffer> grads(kParts);
  ForEachPart(plan, [&](int64_t part, int64_t begin, int64_t end) {
    if (begin == end) return;
    grads[part].assign(decoder.num_parameters(), 0.0f);
    FloatBuffer d_hidden, logits(kLogitRows * vocab);
    for (int64_t c = begin; c < end; ++c) {
      const Chunk& chunk = plan.chunks[c];
      const int64_t outputs = static_cast<int64_t>(chunk.targets.size());
      if (outputs == 0) continue;
      d_hidden.resize(outputs * width);
      for (int64_t i = 0; i < outputs; i += kLogitRows) {
        const int64_t rows = std::min(kLogitRows, outputs - i);
        decoder.Logits(rows, &chunk.hidden[i * width], logits.data());
        for (int64_t r = 0; r < rows; ++r) {
          // d log p(target) / d logits = (onehot - p) / temperature.
          const float g = d_logprobs[chunk.first + i + r] * inv;
          float* row = &logits[r * vocab];
          if (d_entropy == nullptr) {
            ScaledProbabilities(vocab, inv, chunk.lse[i + r], -g, row);
          } else {
            // d entropy / d logits = -p (log p + entropy) / temperature.
            const int64_t at = chunk.first + i + r;
            RowGradient(vocab, inv, chunk.lse[i + r], g, d_entropy[at] * inv,
                        entropy[at], row);
          }
          row[chunk.targets[i + r]] += g;
        }
        decoder.LogitsBackward(rows, &chunk.hidden[i * width], logits.data(),
                               &d_hidden[i * width], Workspace(),
                               grads[part].data());
      }
      decoder.Backward(chunk.segments, chunk.tape, d_hidden.data(), Workspace(),
                       grads[part].data());
    }
  });
  FloatBuffer sum;
  for (FloatBuffer& g : grads) {
    if (g.empty()) continue;
    if (sum.empty())
      sum = std::move(g);
    else
      AddTo(decoder.num_parameters(), g.data(), sum.data());
  }
  sum.resize(decoder.num_parameters());
  return sum;
}

// One differentiable call; owned by its autograd node.
struct Pass : torch::CustomClassHolder {
  std::vector<ScoredSequence> batch;
  std::shared_ptr<const CpuDecoder> decoder;
  Plan plan;
  float temperature = 1;
  torch::Tensor entropy;  // detached; undefined unless asked for

  ~Pass() override {
    std::vector<FloatBuffer>& spare = SpareTapes();
    for (Chunk& chunk : plan.chunks)
      if (spare.size() < kMostSpareTapes)
        spare.push_back(std::move(chunk.tape.data));
  }
};

class ScoreFunction : public torch::autograd::Function<ScoreFunction> {
 public:
  // The parameters are here for autograd to see; `pass` holds their copy.
  // Returns log-probs, and entropies when they are wanted.
  static torch::autograd::variable_list forward(
      torch::autograd::AutogradContext* ctx, at::TensorList /*parameters*/,
      c10::intrusive_ptr<Pass> pass, bool want_entropy) {
    std::vector<FloatBuffer>& spare = SpareTapes();
    for (Chunk& chunk : pass->plan.chunks) {
      if (spare.empty()) break;
      chunk.tape.data = std::move(spare.back());
      spare.pop_back();
    }
    torch::Tensor logprobs = torch::empty({pass->plan.num_scored});
    torch::Tensor entropy;
    if (want_entropy) entropy = torch::empty({pass->plan.num_scored});
    ScoreForward(*pass->decoder, pass->plan, pass->temperature, true,
                 logprobs.data_ptr<float>(),
                 want_entropy ? entropy.data_ptr<float>() : nullptr);
    // Not the output itself, which will own this node.
    if (want_entropy) pass->entropy = entropy.detach();
    ctx->saved_data["pass"] = c10::IValue::make_capsule(pass);
    ctx->set_materialize_grads(false);
    if (!want_entropy) return {logprobs};
    return {logprobs, entropy};
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* ctx,
      torch::autograd::variable_list d_outputs) {
    const auto pass = c10::static_intrusive_pointer_cast<Pass>(
        ctx->saved_data["pass"].toCapsule());
    const torch::Tensor d = d_outputs[0].defined()
                                ? d_outputs[0].contiguous()
                                : torch::zeros({pass->plan.num_scored});
    torch::Tensor d_entropy;
    if (d_outputs.size() > 1 && d_outputs[1].defined())
      d_entropy = d_outputs[1].contiguous();
    const FloatBuffer sum = ScoreBackward(
        *pass->decoder, pass->plan, pass->temperature, d.data_ptr<float>(),
        d_entropy.defined() ? d_entropy.data_ptr<float>() : nullptr,
        d_entropy.defined() ? pass->entropy.data_ptr<float>() : nullptr);
    torch::autograd::variable_list grads;
    int64_t offset = 0;
    for (const ParameterSpec& spec : ParameterSpecs(pass->decoder->config())) {
      torch::Tensor g = torch::empty(spec.shape);
      std::copy_n(&sum[offset], g.numel(), g.data_ptr<float>());
      offset += g.numel();
      grads.push_back(std::move(g));
    }
    grads.emplace_back();  // of `pass`
    grads.emplace_back();  // of `want_entropy`
    return grads;
  }
};

}  // namespace

bool CanScoreOnCpu(Qwen3& model) { return KernelObstacle(model).empty(); }

std::string KernelObstacle(Qwen3& model) {
  if (!model->own_kernels()) return "deterministic: false";
  int64_t count = 0;
  for (const torch::Tensor& p : model->parameters()) {
    if (!p.device().is_cpu()) return "a model that is not on the CPU";
    if (p.scalar_type() != torch::kFloat32) return "another dtype than float32";
    count += p.numel();
  }
  if (!CpuKernelsSupported()) return "a CPU without AVX2 and FMA";
  if (!CpuDecoder::Supports(model->config()))
    return "hidden_size, intermediate_size or head_dim that is no multiple of "
           "16";
  if (count > kMostParameters && torch::GradMode::is_enabled())
    return absl::StrCat("training of ", count, " parameters, more than ",
                        kMostParameters);
  return "";
}

std::shared_ptr<const CpuDecoder> MakeCpuDecoder(Qwen3& model,
                                                 int64_t max_positions,
                                                 bool backward) {
  std::vector<torch::Tensor> held;  // what the pointers show
  std::vector<const float*> pointers;
  for (const torch::Tensor& p : model->OrderedParameters()) {
    held.push_back(p.detach().contiguous());
    pointers.push_back(held.back().data_ptr<float>());
  }
  return std::make_shared<const CpuDecoder>(model->config(), pointers,
                                            max_positions, backward);
}

SpanLogProbs CpuScoreSpans(Qwen3& model,
                           const std::vector<ScoredSequence>& batch,
                           float temperature, bool want_entropy,
                           const CpuDecoder* frozen) {
  SpanLogProbs result;
  if (!torch::GradMode::is_enabled()) {
    Plan plan = MakePlan(batch);
    std::shared_ptr<const CpuDecoder> own;
    if (frozen == nullptr || frozen->max_positions() < plan.longest) {
      own = MakeCpuDecoder(model, plan.longest, false);
      frozen = own.get();
    }
    result.logprobs = torch::empty({plan.num_scored});
    if (want_entropy) result.entropy = torch::empty({plan.num_scored});
    ScoreForward(*frozen, plan, temperature, false,
                 result.logprobs.data_ptr<float>(),
                 want_entropy ? result.entropy.data_ptr<float>() : nullptr);
    return result;
  }
  auto pass = c10::make_intrusive<Pass>();
  pass->batch = batch;
  pass->plan = MakePlan(pass->batch);
  pass->decoder = MakeCpuDecoder(model, pass->plan.longest, true);
  pass->temperature = temperature;
  const std::vector<torch::Tensor> parameters = model->OrderedParameters();
  const torch::autograd::variable_list out =
      ScoreFunction::apply(at::TensorList(parameters), pass, want_entropy);
  result.logprobs = out[0];
  if (want_entropy) result.entropy = out[1];
  return result;
}

}  // namespace atod::model
