#pragma once

#include <cstdint>
#include <string>

#include "common/model/model_config.h"

namespace atod::model {

// How a model is opened, as far as memory depends on it.
struct MemoryOptions {
  std::string dtype = "float32";  // or "bfloat16"
  bool cuda = false;
  bool exact = true;  // back end cpu-exact, else torch
  bool gradients = false;
  int64_t max_context = 0;
  int64_t threads = 1;
};

// A packed pass, or a step of an engine.
struct PassShape {
  int64_t tokens = 0;   // rows of all sequences together
  int64_t longest = 0;  // of one sequence, with what is cached of it
  int64_t outputs = 0;  // rows whose log-prob or sample is wanted
};

// Bytes that a LanguageModel takes, from shapes alone; allocators and libraries
// come on top. Written down beside the code whose buffers it counts: arena.h,
// exact/ and torch/. A counting allocator holds it to a tenth on the CPU.
class ModelMemory {
 public:
  ModelMemory(const ModelConfig& config, const MemoryOptions& options);

  int64_t parameters() const { return parameters_; }
  // For as long as the model is open: values in its dtype; float32 masters
  // beside values of another dtype; main gradients; what the back end lays out
  // beside the values (panels, packed matrices, tables of angles).
  uint64_t Values() const;
  uint64_t Masters() const;
  uint64_t Gradients() const;
  uint64_t Layout() const;
  uint64_t Resident() const {
    return Values() + Masters() + Gradients() + Layout();
  }
  // Keys and values of one token, all layers.
  uint64_t CacheRow() const;
  // What a trainer's passes leave behind for the next ones: cpu-exact gives
  // the activations of a micro-batch back at its end only.
  uint64_t Tapes(const PassShape& pass) const;
  // Beside all this while it runs: Score, a Step (whose new keys have a
  // cache), and ScoreForBackward with its Backward.
  uint64_t Score(const PassShape& pass) const;
  uint64_t Step(const PassShape& pass) const;
  uint64_t Train(const PassShape& pass) const;

 private:
  // Frozen bfloat16 matrices on the CPU (torch/cpu_linear.h).
  bool Packs() const;
  struct Chunks;
  Chunks ChunksOf(const PassShape& pass) const;
  uint64_t ExactLayer(int64_t rows, int64_t queries) const;
  uint64_t ExactForward(const PassShape& pass, int64_t rows,
                        int64_t outputs) const;
  uint64_t ExactScore(const PassShape& pass) const;
  uint64_t ExactBackward(const PassShape& pass) const;
  uint64_t TorchForward(const PassShape& pass) const;
  uint64_t TorchHead(const PassShape& pass) const;
  uint64_t TorchTrain(const PassShape& pass) const;
  // Kept for the backward pass by a layer, a token.
  uint64_t TorchKept() const;

  ModelConfig c_;
  MemoryOptions o_;
  int64_t parameters_ = 0, leaves_ = 0, body_ = 0;
  int64_t layers_, vocab_, h_, q_, k_, f_;
  uint64_t b_;  // bytes of a number in the dtype
};

}  // namespace atod::model
