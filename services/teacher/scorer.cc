#include "services/teacher/scorer.h"

#include <utility>

#include "common/base/status_macros.h"

namespace atod::teacher {
namespace {

class ModelScorer : public Scorer {
 public:
  ModelScorer(std::unique_ptr<model::LanguageModel> model,
              int64_t max_forward_tokens)
      : model_(std::move(model)), max_forward_tokens_(max_forward_tokens) {}

  absl::StatusOr<std::vector<ScoreResult>> Score(
      const std::vector<ScoreRequest>& requests,
      const ScoreOptions& options) override {
    std::vector<ScoreResult> results(requests.size());
    size_t end;
    for (size_t begin = 0; begin < requests.size(); begin = end) {
      int64_t tokens = 0;
      for (end = begin; end < requests.size(); ++end) {
        tokens += static_cast<int64_t>(requests[end].tokens.size());
        if (end > begin && tokens > max_forward_tokens_) break;
      }
      ATOD_RETURN_IF_ERROR(Forward(requests, begin, end, options, results));
    }
    return results;
  }

 private:
  absl::Status Forward(const std::vector<ScoreRequest>& requests, size_t begin,
                       size_t end, const ScoreOptions& options,
                       std::vector<ScoreResult>& results) {
    std::vector<model::ScoredSequence> batch;
    for (size_t i = begin; i < end; ++i) {
      model::ScoredSequence& s = batch.emplace_back();
      s.tokens = requests[i].tokens;
      s.spans = requests[i].spans;
    }
    ATOD_ASSIGN_OR_RETURN(
        const model::ScoreOutput out,
        model_->Score(batch, {.temperature = options.temperature,
                              .want_entropy = options.want_entropy}));
    int64_t offset = 0;
    for (size_t i = begin; i < end; ++i) {
      int64_t n = 0;
      for (const TokenSpan& span : requests[i].spans) n += span.length;
      const auto part = [&](const std::vector<float>& all) {
        return std::vector<float>(all.begin() + offset,
                                  all.begin() + offset + n);
      };
      results[i].logprobs = part(out.logprobs);
      if (options.want_entropy) results[i].entropy = part(out.entropy);
      offset += n;
    }
    return absl::OkStatus();
  }

  const std::unique_ptr<model::LanguageModel> model_;
  const int64_t max_forward_tokens_;
};

}  // namespace

absl::StatusOr<LoadedScorer> MakeScorer(const std::string& model_dir,
                                        const ScorerOptions& options) {
  ATOD_ASSIGN_OR_RETURN(std::unique_ptr<model::LanguageModel> model,
                        model::LanguageModel::Open(
                            model_dir, {.dtype = options.dtype,
                                        .device = options.device,
                                        .deterministic = options.deterministic,
                                        .max_context = options.max_context}));
  LoadedScorer loaded;
  loaded.config = model->config();
  loaded.back_end = model->back_end();
  loaded.max_context = static_cast<uint32_t>(model->max_context());
  ATOD_ASSIGN_OR_RETURN(loaded.weights_hash, model->WeightsHash());
  loaded.scorer = std::make_unique<ModelScorer>(std::move(model),
                                                options.max_forward_tokens);
  return loaded;
}

}  // namespace atod::teacher
