#include "common/engine/engine.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/base/temperature.h"
#include "common/model/model_folder.h"

namespace atod::engine {
namespace {

// One slot of the cache holds one request from its prompt to its last token.
class SlotEngine : public ModelEngine {
 public:
  SlotEngine(std::unique_ptr<model::LanguageModel> model,
             const std::vector<int32_t>& stop_tokens,
             const EngineOptions& options)
      : model_(std::move(model)),
        max_prefill_tokens_(options.max_prefill_tokens),
        stop_tokens_(stop_tokens.begin(), stop_tokens.end()),
        slots_(options.max_slots),
        slot_rows_(RowsOf(model_->max_context())) {}

  static int64_t RowsOf(int64_t tokens) {
    return (tokens + model::kCacheUnit - 1) / model::kCacheUnit *
           model::kCacheUnit;
  }

  const model::ModelConfig& config() const override { return model_->config(); }
  const model::BackEnd& back_end() const override { return model_->back_end(); }
  int64_t max_context() const override { return model_->max_context(); }

  absl::Status Enqueue(EngineRequest request) override {
    ATOD_RETURN_IF_ERROR(Validate(request));
    living_.insert(request.id);
    queue_.push_back(std::move(request));
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<EngineResult>> Step() override {
    std::vector<EngineResult> finished;
    Admit();
    std::vector<model::StepInput> inputs;
    std::vector<Active*> rows;
    std::vector<size_t> slots;
    for (size_t i = 0; i < slots_.size(); ++i) {
      if (!slots_[i].has_value()) continue;
      Active& a = *slots_[i];
      model::StepInput& in = inputs.emplace_back();
      in.region = {static_cast<int64_t>(i) * slot_rows_, slot_rows_};
      if (a.result.tokens.empty()) {
        in.tokens = a.request.prompt;
      } else {
        in.tokens = absl::MakeConstSpan(&a.result.tokens.back(), 1);
        in.position = static_cast<int64_t>(a.request.prompt.size() +
                                           a.result.tokens.size()) -
                      1;
      }
      a.request.noise.position = static_cast<uint32_t>(a.result.tokens.size());
      const SamplingParams& p = a.request.sampling;
      in.sample = {p.temperature, p.top_p, p.top_k,
                   NoiseUniform(a.request.noise)};
      rows.push_back(&a);
      slots.push_back(i);
    }
    if (inputs.empty()) return finished;
    ATOD_RETURN_IF_ERROR(model_->Step(inputs, &sampled_));
    for (size_t i = 0; i < rows.size(); ++i) {
      Active& a = *rows[i];
      const model::SampledToken& sampled = sampled_[i];
      a.result.tokens.push_back(sampled.token);
      a.result.logprobs.push_back(sampled.logprob);
      const bool stop = stop_tokens_.contains(sampled.token);
      if (!stop && static_cast<int64_t>(a.result.tokens.size()) < a.most)
        continue;
      a.result.finish = stop ? FinishReason::kStop : FinishReason::kLength;
      living_.erase(a.request.id);
      finished.push_back(std::move(a.result));
      slots_[slots[i]].reset();
    }
    return finished;
  }

  bool has_work() const override { return !living_.empty(); }

  void EndSession(uint64_t /*session*/) override {}

  void CancelAll() override {
    queue_.clear();
    living_.clear();
    for (auto& slot : slots_) slot.reset();
  }

  absl::Status InstallWeights(
      const weights::WeightSnapshot& snapshot) override {
    if (has_work())
      return absl::FailedPreconditionError(
          absl::StrCat("weights: found ", living_.size(),
                       " living requests, expected none during a swap"));
    return model_->Install(snapshot);
  }

 private:
  struct Active {
    EngineRequest request;
    EngineResult result;
    int64_t most = 0;  // tokens to sample
  };

  absl::Status Validate(const EngineRequest& r) const {
    const auto bad = [&r](std::string field, std::string found,
                          std::string expected) {
      return BadInput({absl::StrCat("request ", r.id), std::move(field), 0,
                       std::move(found), std::move(expected)});
    };
    if (r.prompt.empty() ||
        static_cast<int64_t>(r.prompt.size()) >= max_context())
      return bad("prompt", absl::StrCat(r.prompt.size(), " tokens"),
                 absl::StrCat("1 to ", max_context() - 1));
    for (const int32_t id : r.prompt)
      if (id < 0 || id >= config().vocab_size)
        return bad("prompt", absl::StrCat("token id ", id),
                   absl::StrCat("0 to ", config().vocab_size - 1));
    const SamplingParams& s = r.sampling;
    if (!(s.temperature == 0 || s.temperature >= kMinTemperature) ||
        !std::isfinite(s.temperature))
      return bad("temperature", absl::StrCat(s.temperature),
                 absl::StrCat("0 (greedy), or at least ", kMinTemperature));
    if (!(s.top_p > 0 && s.top_p <= 1))
      return bad("top_p", absl::StrCat(s.top_p), "above 0, at most 1");
    if (s.max_tokens == 0) return bad("max_tokens", "0", "at least 1");
    if (living_.contains(r.id))
      return bad("id", absl::StrCat(r.id, ", which is living"), "a new id");
    if (r.session != 0)
      return bad("session", absl::StrCat(r.session),
                 "0: this engine keeps no sessions");
    if (r.group != 0)
      return bad("group", absl::StrCat(r.group),
                 "0: this engine shares no prompts");
    return absl::OkStatus();
  }

  // Queued requests, in order, into free slots.
  void Admit() {
    int64_t tokens = 0;
    for (size_t i = 0; i < slots_.size() && !queue_.empty(); ++i) {
      if (slots_[i].has_value()) continue;
      const int64_t prompt = static_cast<int64_t>(queue_.front().prompt.size());
      if (tokens > 0 && tokens + prompt > max_prefill_tokens_) break;
      const int64_t most = std::min<int64_t>(queue_.front().sampling.max_tokens,
                                             max_context() - prompt);
      tokens += prompt;
      Active& a = slots_[i].emplace();
      a.request = std::move(queue_.front());
      a.result.id = a.request.id;
      a.most = most;
      queue_.pop_front();
    }
  }

  const std::unique_ptr<model::LanguageModel> model_;
  const int64_t max_prefill_tokens_;
  absl::flat_hash_set<int32_t> stop_tokens_;
  std::deque<EngineRequest> queue_;
  std::vector<std::optional<Active>> slots_;
  absl::flat_hash_set<uint64_t> living_;  // ids, queued or in a slot
  const int64_t slot_rows_;               // of the cache
  std::vector<model::SampledToken> sampled_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ModelEngine>> MakeEngine(
    const std::string& model_dir, const EngineOptions& options) {
  ATOD_ASSIGN_OR_RETURN(std::unique_ptr<model::LanguageModel> model,
                        model::LanguageModel::Open(model_dir, options.model));
  ATOD_RETURN_IF_ERROR(model->AllocateCache(
      options.max_slots * SlotEngine::RowsOf(model->max_context())));
  ATOD_ASSIGN_OR_RETURN(const std::vector<int32_t> stop_tokens,
                        model::StopTokens(model_dir));
  return std::make_unique<SlotEngine>(std::move(model), stop_tokens, options);
}

}  // namespace atod::engine
