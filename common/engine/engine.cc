#include "common/engine/engine.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/base/temperature.h"
#include "common/engine/scheduler.h"

namespace atod::engine {
namespace {

SchedulerOptions SchedulerOptionsOf(const EngineOptions& options,
                                    int64_t max_context) {
  const int64_t all = options.max_slots * RegionPool::RoundUp(max_context);
  return {.rows = options.kv_tokens == 0
                      ? all
                      : std::min(RegionPool::RoundUp(options.kv_tokens), all),
          .batch_tokens = options.batch_tokens,
          .max_running = options.max_slots,
          .max_queue = options.max_queue};
}

double GibOf(int64_t rows, const model::LanguageModel& model) {
  return static_cast<double>(rows * model.CacheRowBytes()) / (1 << 30);
}

// Runs what the scheduler plans on a model.
class Runner : public ModelEngine {
 public:
  Runner(std::unique_ptr<model::LanguageModel> model,
         absl::Span<const int32_t> stop_tokens, const SchedulerOptions& options)
      : model_(std::move(model)),
        stop_tokens_(stop_tokens.begin(), stop_tokens.end()),
        options_(options),
        scheduler_(options) {}

  const model::ModelConfig& config() const override { return model_->config(); }
  const model::BackEnd& back_end() const override { return model_->back_end(); }
  int64_t max_context() const override { return model_->max_context(); }

  absl::Status Enqueue(EngineRequest request) override {
    ATOD_RETURN_IF_ERROR(Validate(request));
    const int64_t prompt = static_cast<int64_t>(request.prompt.size());
    Living living;
    living.sampling = request.sampling;
    living.noise = request.noise;
    living.most =
        std::min<int64_t>(request.sampling.max_tokens, max_context() - prompt);
    ATOD_RETURN_IF_ERROR(
        scheduler_.Enqueue({.id = request.id,
                            .prompt = std::move(request.prompt),
                            .max_tokens = living.most,
                            .session = request.session,
                            .group = request.group}));
    living_.emplace(request.id, std::move(living));
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<EngineResult>> Step() override {
    std::vector<EngineResult> finished;
    if (!has_work()) return finished;
    const StepPlan plan = scheduler_.Next();
    if (const absl::Status s = Run(plan); !s.ok()) {
      CancelAll();
      return s;
    }
    std::vector<Scheduler::Drawn> drawn;
    for (const StepWork& work : plan.work)
      if (work.sample)
        drawn.push_back(Keep(work.id, sampled_[drawn.size()], finished));
    scheduler_.Done(plan, drawn);
    return finished;
  }

  bool has_work() const override { return scheduler_.has_work(); }

  void EndSession(uint64_t session) override { scheduler_.EndSession(session); }

  void CancelAll() override {
    scheduler_.Clear();
    living_.clear();
  }

  bool Cancel(uint64_t id) override {
    living_.erase(id);
    return scheduler_.Cancel(id);
  }

  absl::Span<const int32_t> Sampled(uint64_t id) const override {
    const auto it = living_.find(id);
    if (it == living_.end()) return {};
    return it->second.tokens;
  }

  absl::Status InstallWeights(
      const weights::WeightSnapshot& snapshot) override {
    if (has_work())
      return absl::FailedPreconditionError(
          absl::StrCat("weights: found ", living_.size(),
                       " living requests, expected none during a swap"));
    ATOD_RETURN_IF_ERROR(model_->Install(snapshot));
    scheduler_.NewWeights();
    return absl::OkStatus();
  }

  EngineStats stats() const override {
    const SequenceCache& cache = scheduler_.cache();
    return {.cache_rows = cache.rows(),
            .cache_rows_used = cache.pool().used(),
            .queued = scheduler_.queued(),
            .running = scheduler_.running(),
            .idle_sessions = cache.idle_sessions(),
            .prompt_tokens_computed = scheduler_.prompt_tokens_computed(),
            .prompt_tokens_reused = cache.reused_tokens(),
            .sessions_evicted = cache.evicted_sessions()};
  }

  std::string Description() const override {
    const model::BackEnd& b = back_end();
    return absl::StrFormat(
        "back end %s, device %s, dtype %s; keys and values of %d tokens "
        "(%.2f GiB), at most %d requests and %d tokens a step",
        b.name, b.device, b.dtype, options_.rows, GibOf(options_.rows, *model_),
        options_.max_running, options_.batch_tokens);
  }

 private:
  // A request, queued or running.
  struct Living {
    SamplingParams sampling;
    NoiseKey noise;
    int64_t most = 0;  // tokens to sample
    std::vector<int32_t> tokens;
    std::vector<float> logprobs;
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
    return absl::OkStatus();
  }

  absl::Status Run(const StepPlan& plan) {
    for (const CacheCopy& copy : plan.copies)
      ATOD_RETURN_IF_ERROR(model_->CopyCache(copy.from, copy.to, copy.rows));
    std::vector<model::StepInput> inputs;
    inputs.reserve(plan.work.size());
    for (const StepWork& work : plan.work) {
      model::StepInput& in = inputs.emplace_back();
      in.tokens = work.tokens;
      in.position = work.position;
      in.region = work.region;
      if (!work.sample) continue;
      Living& living = living_.at(work.id);
      living.noise.position = static_cast<uint32_t>(living.tokens.size());
      const SamplingParams& p = living.sampling;
      in.sample = {p.temperature, p.top_p, p.top_k, NoiseUniform(living.noise)};
    }
    return model_->Step(inputs, &sampled_);
  }

  // Adds a token to its request, which may finish by it.
  Scheduler::Drawn Keep(uint64_t id, const model::SampledToken& sampled,
                        std::vector<EngineResult>& finished) {
    const auto it = living_.find(id);
    Living& living = it->second;
    living.tokens.push_back(sampled.token);
    living.logprobs.push_back(sampled.logprob);
    const bool stop = stop_tokens_.contains(sampled.token);
    const bool last =
        stop || static_cast<int64_t>(living.tokens.size()) == living.most;
    if (last) {
      finished.push_back({id, std::move(living.tokens),
                          std::move(living.logprobs),
                          stop ? FinishReason::kStop : FinishReason::kLength});
      living_.erase(it);
    }
    return {sampled.token, last};
  }

  const std::unique_ptr<model::LanguageModel> model_;
  const absl::flat_hash_set<int32_t> stop_tokens_;
  const SchedulerOptions options_;
  Scheduler scheduler_;
  std::map<uint64_t, Living> living_;  // by id
  std::vector<model::SampledToken> sampled_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ModelEngine>> MakeEngine(
    std::unique_ptr<model::LanguageModel> model,
    absl::Span<const int32_t> stop_tokens, const EngineOptions& options) {
  if (options.max_slots < 1 || options.batch_tokens < options.max_slots)
    return BadInput({.field = "batch_tokens",
                     .found = absl::StrCat(options.batch_tokens),
                     .expected = absl::StrCat("at least one for each of ",
                                              options.max_slots, " slots")});
  const SchedulerOptions scheduler =
      SchedulerOptionsOf(options, model->max_context());
  const absl::Status cache = model->AllocateCache(scheduler.rows);
  if (!cache.ok())
    return absl::Status(
        cache.code(),
        absl::StrFormat("%s (%.1f GiB); fewer slots, a shorter context or "
                        "kv_tokens need less",
                        cache.message(), GibOf(scheduler.rows, *model)));
  return std::make_unique<Runner>(std::move(model), stop_tokens, scheduler);
}

}  // namespace atod::engine
