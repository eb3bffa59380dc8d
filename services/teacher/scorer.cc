#include "services/teacher/scorer.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/model/cpu_decoder.h"
#include "common/model/model.h"
#include "common/model/model_folder.h"
#include "common/model/packed_score.h"
#include "common/model/self_test.h"
#include "common/model/torch_status.h"
#include "common/model/weights_io.h"

namespace atod::teacher {
namespace {

class ModelScorer : public Scorer {
 public:
  ModelScorer(model::Qwen3 model, uint32_t max_context,
              int64_t max_forward_tokens)
      : model_(std::move(model)), max_forward_tokens_(max_forward_tokens) {
    torch::NoGradGuard no_grad;
    if (model::CanScoreOnCpu(model_))
      frozen_ = model::MakeCpuDecoder(model_, max_context, false);
  }

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
    return model::CatchTorch("score", [&]() -> absl::Status {
      torch::NoGradGuard no_grad;
      std::vector<model::ScoredSequence> batch;
      for (size_t i = begin; i < end; ++i) {
        model::ScoredSequence& s = batch.emplace_back();
        s.tokens = requests[i].tokens;
        for (const TokenSpan& span : requests[i].spans)
          s.spans.push_back({span.begin, span.length});
      }
      const model::SpanLogProbs out =
          frozen_ != nullptr
              ? model::CpuScoreSpans(model_, batch, options.temperature,
                                     options.want_entropy, frozen_.get())
              : model::ScoreSpans(model_, batch, options.temperature,
                                  options.want_entropy);
      const torch::Tensor logprobs = out.logprobs.cpu().contiguous();
      const torch::Tensor entropy = options.want_entropy
                                        ? out.entropy.cpu().contiguous()
                                        : torch::Tensor();
      int64_t offset = 0;
      for (size_t i = begin; i < end; ++i) {
        int64_t n = 0;
        for (const TokenSpan& span : requests[i].spans) n += span.length;
        const float* p = logprobs.data_ptr<float>() + offset;
        results[i].logprobs.assign(p, p + n);
        for (const float value : results[i].logprobs)
          if (!std::isfinite(value))
            return absl::FailedPreconditionError(absl::StrCat(
                "logprobs: found ", value,
                ", expected finite numbers: the model's weights are so large "
                "that its logits overflow"));
        if (options.want_entropy) {
          const float* h = entropy.data_ptr<float>() + offset;
          results[i].entropy.assign(h, h + n);
        }
        offset += n;
      }
      return absl::OkStatus();
    });
  }

  model::Qwen3 model_;
  const int64_t max_forward_tokens_;
  std::shared_ptr<const model::CpuDecoder> frozen_;  // null off the CPU path
};

}  // namespace

absl::StatusOr<LoadedScorer> MakeScorer(const std::string& model_dir,
                                        const ScorerOptions& options) {
  ATOD_RETURN_IF_ERROR(model::CheckDevice(options.device));
  ATOD_ASSIGN_OR_RETURN(model::Qwen3 model,
                        model::LoadModel(model_dir, options.dtype));
  LoadedScorer loaded;
  loaded.config = model->config();
  loaded.max_context =
      options.max_context > 0
          ? options.max_context
          : static_cast<uint32_t>(loaded.config.max_position_embeddings);
  ATOD_RETURN_IF_ERROR(
      model::CheckPositions(loaded.config, model_dir, loaded.max_context));
  ATOD_ASSIGN_OR_RETURN(const weights::WeightSnapshot snapshot,
                        model::ExportWeights(model, options.dtype));
  loaded.weights_hash = snapshot.root_hash;
  ATOD_RETURN_IF_ERROR(model::CatchTorch(model_dir, [&]() -> absl::Status {
    model->to(torch::Device(options.device));
    torch::NoGradGuard no_grad;
    ATOD_RETURN_IF_ERROR(model::UseKernels(model, options.deterministic));
    loaded.scorer = std::make_unique<ModelScorer>(model, loaded.max_context,
                                                  options.max_forward_tokens);
    return absl::OkStatus();
  }));
  return loaded;
}

}  // namespace atod::teacher
