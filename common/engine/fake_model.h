#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/rng.h"
#include "common/model/language_model.h"

namespace atod::engine {

// A model for tests. The row of a token in its cache holds a hash of the
// weights and of all tokens up to it, and what it draws depends on the last row
// alone: a row that was copied, reused or overwritten wrongly shows in every
// token behind it.
class FakeModel final : public model::LanguageModel {
 public:
  explicit FakeModel(int64_t vocab_size, int64_t max_context) {
    config_.vocab_size = vocab_size;
    config_.max_position_embeddings = max_context;
  }

  // The token that follows `tokens`; `noise` shifts it.
  static int32_t Next(absl::Span<const int32_t> tokens, uint64_t weights,
                      double noise, int64_t vocab_size) {
    uint64_t hash = MixSeed(weights, 0);
    for (const int32_t t : tokens) hash = MixSeed(hash, t);
    return Draw(hash, noise, vocab_size);
  }

  const model::ModelConfig& config() const override { return config_; }
  int64_t max_context() const override {
    return config_.max_position_embeddings;
  }
  const model::BackEnd& back_end() const override { return back_end_; }
  absl::StatusOr<std::string> WeightsHash() override {
    return absl::StrCat(weights);
  }
  absl::StatusOr<model::ScoreOutput> Score(
      absl::Span<const model::ScoredSequence>,
      const model::ScoreOptions&) override {
    return absl::UnimplementedError("fake");
  }
  absl::StatusOr<model::ScoreOutput> ScoreForBackward(
      absl::Span<const model::ScoredSequence>,
      const model::ScoreOptions&) override {
    return absl::UnimplementedError("fake");
  }
  absl::Status Backward(absl::Span<const float>,
                        absl::Span<const float>) override {
    return absl::UnimplementedError("fake");
  }

  absl::Status AllocateCache(int64_t rows) override {
    rows_.assign(rows, {});
    return absl::OkStatus();
  }
  int64_t CacheRowBytes() const override { return 8; }
  absl::Status CopyCache(model::Region from, model::Region to,
                         int64_t rows) override {
    if (!Fits(from, rows) || !Fits(to, rows))
      return absl::InternalError("a copy outside of its regions");
    if (to.begin > from.begin && to.begin < from.begin + rows)
      return absl::InternalError("a copy upwards that overlaps");
    for (int64_t i = 0; i < rows; ++i)
      rows_[to.begin + i] = rows_[from.begin + i];
    copied_rows += rows;
    return absl::OkStatus();
  }
  absl::Status Step(absl::Span<const model::StepInput> inputs,
                    std::vector<model::SampledToken>* sampled) override {
    if (!step_error.ok()) return step_error;
    sampled->clear();
    std::vector<bool> taken(rows_.size());
    for (const model::StepInput& in : inputs) {
      const int64_t end = in.position + static_cast<int64_t>(in.tokens.size());
      if (!Fits(in.region, end) || in.tokens.empty())
        return absl::InternalError("an input outside of its region");
      for (int64_t i = 0; i < in.region.rows; ++i) {
        if (taken[in.region.begin + i])
          return absl::InternalError("regions of inputs overlap");
        taken[in.region.begin + i] = true;
      }
      Row* const rows = &rows_[in.region.begin];
      uint64_t hash = MixSeed(weights, 0);
      for (int64_t i = 0; i < in.position; ++i) {
        hash = MixSeed(hash, rows[i].token);
        if (rows[i].hash != hash)
          return absl::InternalError(absl::StrCat("row ", i, " is stale"));
      }
      for (size_t i = 0; i < in.tokens.size(); ++i) {
        hash = MixSeed(hash, in.tokens[i]);
        rows[in.position + i] = {hash, in.tokens[i]};
      }
      tokens_run += static_cast<int64_t>(in.tokens.size());
      if (in.sample.has_value())
        sampled->push_back(
            {Draw(hash, in.sample->noise, config_.vocab_size), -1.0f});
    }
    most_in_a_step = std::max(most_in_a_step, Total(inputs));
    return absl::OkStatus();
  }
  absl::Status Install(const weights::WeightSnapshot&) override {
    if (!install_error.ok()) return install_error;
    ++weights;
    return absl::OkStatus();
  }
  absl::StatusOr<weights::WeightSnapshot> Export(const std::string&) override {
    return absl::UnimplementedError("fake");
  }
  absl::Status Save(const std::string&, const std::string&) override {
    return absl::UnimplementedError("fake");
  }
  model::ParameterArena& arena() override { std::abort(); }
  absl::Status ParametersChanged() override { return absl::OkStatus(); }

  uint64_t weights = 1;
  absl::Status step_error;
  absl::Status install_error;
  int64_t tokens_run = 0;
  int64_t copied_rows = 0;
  int64_t most_in_a_step = 0;

 private:
  struct Row {
    uint64_t hash = 0;
    int32_t token = 0;
  };
  static int32_t Draw(uint64_t hash, double noise, int64_t vocab_size) {
    return static_cast<int32_t>(
        MixSeed(hash, static_cast<uint64_t>(noise * 1e9)) %
        static_cast<uint64_t>(vocab_size));
  }
  static int64_t Total(absl::Span<const model::StepInput> inputs) {
    int64_t total = 0;
    for (const model::StepInput& in : inputs)
      total += static_cast<int64_t>(in.tokens.size());
    return total;
  }
  bool Fits(model::Region region, int64_t rows) const {
    return region.begin >= 0 && rows <= region.rows &&
           region.begin + region.rows <= static_cast<int64_t>(rows_.size());
  }

  model::ModelConfig config_;
  model::BackEnd back_end_{"fake", "cpu", "float32"};
  std::vector<Row> rows_;
};

}  // namespace atod::engine
