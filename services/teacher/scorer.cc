#include "services/teacher/scorer.h"

#include <optional>
#include <type_traits>
#include <utility>

#include "common/base/status_macros.h"
#include "common/engine/sequence_cache.h"
#include "xxhash.h"

namespace atod::teacher {
namespace {

uint64_t KeyOf(const std::string& session) {
  return XXH3_64bits(session.data(), session.size()) | 1;  // 0 is none
}

class ModelScorer : public Scorer {
 public:
  ModelScorer(std::unique_ptr<model::LanguageModel> model,
              const ScorerOptions& options)
      : model_(std::move(model)), options_(options) {}

  absl::StatusOr<std::vector<ScoreResult>> Score(
      const std::vector<ScoreRequest>& requests,
      const ScoreOptions& options) override {
    std::vector<ScoreResult> results(requests.size());
    for (size_t next = 0; next < requests.size();) {
      ATOD_ASSIGN_OR_RETURN(Forward forward, Begin(requests, next));
      absl::Status status = Run(forward, options, results);
      for (engine::Sequence* s : forward.sequences)
        if (s != nullptr) cache_->Close(*s);
      ATOD_RETURN_IF_ERROR(status);
      next += forward.batch.size();
    }
    return results;
  }

 private:
  // Requests from `first` on that are scored together.
  struct Forward {
    size_t first = 0;
    std::vector<model::ScoredSequence> batch;
    std::vector<engine::Sequence*> sequences;  // null: without a session
  };

  absl::StatusOr<Forward> Begin(const std::vector<ScoreRequest>& requests,
                                size_t first) {
    Forward forward{.first = first, .batch = {}, .sequences = {}};
    int64_t tokens = 0;
    for (size_t i = first; i < requests.size(); ++i) {
      const ScoreRequest& r = requests[i];
      // What continues a request of this batch has to wait for it.
      if (cache_ && !r.session.empty() && cache_->IsLiving(KeyOf(r.session)))
        break;
      const auto all = static_cast<int64_t>(r.tokens.size());
      if (i > first &&
          tokens + (r.session.empty() ? all : 0) > options_.max_forward_tokens)
        break;
      ATOD_ASSIGN_OR_RETURN(engine::Sequence* const s, Open(r));
      tokens += all - (s != nullptr ? s->held : 0);
      forward.sequences.push_back(s);
      forward.batch.push_back({.tokens = r.tokens, .spans = r.spans});
    }
    // Opening one may move the others.
    for (size_t i = 0; i < forward.batch.size(); ++i) {
      const engine::Sequence* const s = forward.sequences[i];
      if (s == nullptr) continue;
      forward.batch[i].region = s->region;
      forward.batch[i].cached = s->held;
    }
    return forward;
  }

  // Null: there is no session, or no room for it.
  absl::StatusOr<engine::Sequence*> Open(const ScoreRequest& r) {
    if (r.session.empty() || options_.kv_tokens == 0) return nullptr;
    if (!cache_) {
      const int64_t rows = engine::RegionPool::RoundUp(options_.kv_tokens);
      ATOD_RETURN_IF_ERROR(model_->AllocateCache(rows));
      cache_.emplace(rows);
    }
    const auto size = static_cast<int64_t>(r.tokens.size());
    // The token before the first scored one gives its distribution.
    return cache_->Open({.session = KeyOf(r.session),
                         .prompt = r.tokens,
                         .rows = size,
                         .reusable = int64_t{r.spans[0].begin} - 1});
  }

  absl::Status Run(const Forward& forward, const ScoreOptions& options,
                   std::vector<ScoreResult>& results) {
    if (cache_)
      for (const engine::CacheCopy& copy : cache_->TakeCopies())
        ATOD_RETURN_IF_ERROR(model_->CopyCache(copy.from, copy.to, copy.rows));
    ATOD_ASSIGN_OR_RETURN(
        const model::ScoreOutput out,
        model_->Score(forward.batch,
                      {.temperature = options.temperature,
                       .want_entropy = options.want_entropy,
                       .top_k = static_cast<int32_t>(options.top_k)}));
    int64_t offset = 0;
    for (size_t i = 0; i < forward.batch.size(); ++i) {
      const model::ScoredSequence& scored = forward.batch[i];
      int64_t n = 0;
      for (const TokenSpan& span : scored.spans) n += span.length;
      // `each` numbers a token.
      const auto part = [&](const auto& all, int64_t each) {
        return std::decay_t<decltype(all)>(all.begin() + offset * each,
                                           all.begin() + (offset + n) * each);
      };
      ScoreResult& result = results[forward.first + i];
      result.logprobs = part(out.logprobs, 1);
      if (options.want_entropy) result.entropy = part(out.entropy, 1);
      if (options.top_k > 0) {
        result.top_ids = part(out.top_ids, options.top_k);
        result.top_logprobs = part(out.top_logprobs, options.top_k);
      }
      result.cached = static_cast<uint64_t>(scored.cached);
      offset += n;
      if (engine::Sequence* const s = forward.sequences[i]; s != nullptr)
        cache_->Wrote(*s, static_cast<int64_t>(scored.tokens.size()) - s->held);
    }
    return absl::OkStatus();
  }

  const std::unique_ptr<model::LanguageModel> model_;
  const ScorerOptions options_;
  std::optional<engine::SequenceCache> cache_;  // none before a session came
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
  loaded.scorer = std::make_unique<ModelScorer>(std::move(model), options);
  return loaded;
}

}  // namespace atod::teacher
