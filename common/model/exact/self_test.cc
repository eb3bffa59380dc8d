#include "common/model/exact/self_test.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <memory>
#include <utility>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "common/base/rng.h"
#include "common/model/exact/cpu_decoder.h"
#include "common/model/exact/cpu_kernels.h"
#include "common/model/exact/exact_score.h"
#include "common/model/torch_status.h"
#include "common/model/weights_io.h"

namespace atod::model {
namespace {

constexpr int64_t kRows = 19;  // no multiple of any tile

// Puts the number of compute threads back.
class ThreadsGuard {
 public:
  explicit ThreadsGuard(int threads) : before_(at::get_num_threads()) {
    if (threads != before_) at::set_num_threads(threads);
  }
  ~ThreadsGuard() {
    if (at::get_num_threads() != before_) at::set_num_threads(before_);
  }

 private:
  const int before_;
};

FloatBuffer Random(int64_t n, uint64_t seed) {
  Rng rng(seed);
  FloatBuffer out(n);
  for (float& x : out) x = static_cast<float>(rng.Normal());
  return out;
}

// f(first, count) for the rows in pieces, in several threads.
struct Split {
  int64_t rows;
  int threads;
};
constexpr Split kSplits[] = {{kRows, 1}, {1, 2}, {4, 3}, {7, 2}};

SelfTestOperation ByRows(std::string name, int64_t out_width,
                         std::function<void(int64_t, int64_t, float*)> f) {
  return {std::move(name), static_cast<int>(std::size(kSplits)),
          [out_width, f](int way) {
            const Split& split = kSplits[way];
            const ThreadsGuard threads(split.threads);
            std::vector<float> out(kRows * out_width);
            at::parallel_for(0, (kRows + split.rows - 1) / split.rows, 1,
                             [&](int64_t begin, int64_t end) {
                               for (int64_t i = begin; i < end; ++i) {
                                 const int64_t first = i * split.rows;
                                 f(first, std::min(split.rows, kRows - first),
                                   &out[first * out_width]);
                               }
                             });
            return out;
          }};
}

ModelConfig TinyConfig() {
  ModelConfig c;
  c.vocab_size = 90;
  c.hidden_size = 32;
  c.intermediate_size = 48;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 16;
  c.max_position_embeddings = 64;
  c.rope_theta = 1e4;
  c.tie_word_embeddings = true;
  return c;
}

std::vector<int32_t> RandomTokens(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> tokens(n);
  for (int32_t& t : tokens)
    t = static_cast<int32_t>(rng.Below(TinyConfig().vocab_size));
  return tokens;
}

// Final hidden states of one sequence: in one piece, token by token, in
// chunks, and packed behind another sequence.
std::vector<float> RunSequence(const CpuDecoder& decoder, int way) {
  constexpr int64_t kTokens = 37;
  const std::vector<int32_t> tokens = RandomTokens(kTokens, 7);
  const std::vector<int32_t> other = RandomTokens(11, 8);
  const int64_t width = decoder.config().hidden_size;
  const int64_t capacity = PadToPanel(kTokens);
  const int64_t layer = decoder.KvLayerFloats(capacity);
  FloatBuffer kv(layer * decoder.config().num_hidden_layers), workspace;
  const int64_t chunk = std::vector<int64_t>{kTokens, 1, 5, kTokens}[way];
  FloatBuffer hidden;
  std::vector<float> out;
  for (int64_t at = 0; at < kTokens; at += chunk) {
    std::vector<CpuSegment> segments;
    if (way == 3) {
      CpuSegment& before = segments.emplace_back();
      before.tokens = other.data();
      before.num_tokens = 11;
      before.outputs = {3, 10};
    }
    CpuSegment& s = segments.emplace_back();
    s.tokens = tokens.data() + at;
    s.num_tokens = std::min(chunk, kTokens - at);
    s.position = at;
    for (int32_t i = 0; i < s.num_tokens; ++i) s.outputs.push_back(i);
    // The packed forward keeps keys for one pass only.
    if (way != 3) s.kv = {kv.data(), capacity, layer, 0};
    const int64_t others = way == 3 ? 2 : 0;
    hidden.resize((others + s.num_tokens) * width);
    decoder.Forward(segments, workspace, nullptr, hidden.data());
    out.insert(out.end(), hidden.begin() + others * width, hidden.end());
  }
  return out;
}

// Gradients of all parameters with 1, 2 and 3 threads.
std::vector<float> Gradients(const CpuDecoder& decoder, int way) {
  const ThreadsGuard threads(way + 1);
  std::vector<ScoredSequence> batch;
  for (uint64_t i = 0; i < 20; ++i)
    batch.push_back({RandomTokens(20 + i, 20 + i), {{5, 12}}});
  ScorePlan plan = MakeScorePlan(batch, [](size_t) { return CpuSegment(); });
  ScoreOutput out;
  out.logprobs.resize(plan.num_scored);
  ScoreForward(decoder, plan, {.temperature = 0.7f}, true, out);
  const std::vector<float> ones(plan.num_scored, 1.0f);
  std::vector<float> gradients(decoder.num_parameters());
  ScoreBackward(decoder, plan, 0.7f, ones.data(), nullptr, nullptr,
                gradients.data());
  return gradients;
}

// With random weights, which it keeps, for the backward pass too.
std::shared_ptr<const CpuDecoder> TinyDecoder() {
  struct Tiny {
    ModelWeights weights;
    std::unique_ptr<const CpuDecoder> decoder;
  };
  const auto tiny = std::make_shared<Tiny>();
  tiny->weights = InitWeights(TinyConfig(), "unit", 3).value();
  const ParameterArena& arena = *tiny->weights.arena;
  std::vector<const float*> parameters;
  for (size_t i = 0; i < arena.specs().size(); ++i)
    parameters.push_back(arena.values.data_ptr<float>() + arena.offsets()[i]);
  tiny->decoder =
      std::make_unique<const CpuDecoder>(TinyConfig(), parameters, 64, true);
  return {tiny, tiny->decoder.get()};
}

std::string CpuName() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("model name")) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "a CPU without a model name";
}

}  // namespace

std::vector<SelfTestOperation> KernelOperations() {
  std::vector<SelfTestOperation> out;
  constexpr int64_t kIn = 48, kOut = 90, kHeadDim = 32;
  const FloatBuffer x = Random(kRows * 2 * kIn, 1), w = Random(kIn * kOut, 2);
  FloatBuffer panels(kIn * PadToPanel(kOut));
  PackPanels(w.data(), kIn, kOut, 1, kIn, panels.data());
  const auto linear = [=](int64_t first, int64_t rows, float* y) {
    Gemm(rows, kIn, kOut, {&x[first * kIn], kIn}, {panels.data(), kIn * kPanel},
         y, kOut, false);
  };
  out.push_back(ByRows("linear", kOut, linear));
  out.push_back(
      ByRows("rms norm", kIn, [=](int64_t first, int64_t rows, float* y) {
        RmsNorm(rows, kIn, &x[first * kIn], w.data(), 1e-6f, y);
      }));
  out.push_back(
      ByRows("rotary", kHeadDim, [=](int64_t first, int64_t rows, float* y) {
        for (int64_t i = 0; i < rows; ++i)
          Rotate(kHeadDim, &x[(first + i) * kHeadDim], &w[first + i],
                 &w[200 + first + i], false, y + i * kHeadDim);
      }));
  out.push_back(
      ByRows("swiglu", kIn, [=](int64_t first, int64_t rows, float* y) {
        SwiGlu(rows, kIn, &x[first * 2 * kIn], y);
      }));
  out.push_back(ByRows(
      "head and log-softmax", 1, [=](int64_t first, int64_t rows, float* y) {
        std::vector<float> logits(rows * kOut);
        linear(first, rows, logits.data());
        for (int64_t i = 0; i < rows; ++i)
          y[i] = logits[i * kOut] - LogSumExp(kOut, &logits[i * kOut], 0.7f);
      }));
  const std::shared_ptr<const CpuDecoder> decoder = TinyDecoder();
  out.push_back({"attention (prefill, decode, chunks, packed)", 4,
                 [decoder](int way) { return RunSequence(*decoder, way); }});
  out.push_back(
      {"backward", 3, [decoder](int way) { return Gradients(*decoder, way); }});
  return out;
}

absl::Status RunSelfTest(const std::vector<SelfTestOperation>& operations) {
  return CatchTorch("self-test of the kernels", [&]() -> absl::Status {
    for (const SelfTestOperation& operation : operations) {
      const std::vector<float> first = operation.run(0);
      for (int way = 1; way < operation.ways; ++way) {
        const std::vector<float> other = operation.run(way);
        if (other.size() == first.size() &&
            std::memcmp(other.data(), first.data(),
                        first.size() * sizeof(float)) == 0)
          continue;
        return absl::FailedPreconditionError(absl::StrCat(
            "deterministic: found that ", operation.name,
            " gives other bits in another batch or with other threads on this "
            "CPU (",
            CpuName(),
            "), expected the same; deterministic: false goes on "
            "without the guarantee"));
      }
    }
    return absl::OkStatus();
  });
}

}  // namespace atod::model
