#include "services/learner/policy_trainer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/base/stopwatch.h"
#include "common/checkpoint/safetensors.h"
#include "common/model/arena.h"
#include "common/model/language_model.h"
#include "common/model/torch_status.h"
#include "services/learner/adamw.h"
#include "services/learner/algorithm/duplicate_rows.h"
#include "services/learner/algorithm/recipe.h"
#include "services/learner/algorithm/update_loss.h"
#include "torch/utils.h"

namespace atod::learner {
namespace {

using model::CatchTorch;

constexpr char kUpdatesKey[] = "updates";

// Sequences of one forward, and the batch rows of its scored tokens in the
// order of ScoreSpans' result.
struct MicroBatch {
  std::vector<model::ScoredSequence> sequences;
  std::vector<int32_t> rows;
};

MicroBatch MakeMicroBatch(const std::vector<TrainSequence>& sequences,
                          const std::vector<int32_t>& indices) {
  MicroBatch out;
  for (const int32_t i : indices) {
    const TrainSequence& s = sequences[i];
    model::ScoredSequence& scored = out.sequences.emplace_back();
    scored.tokens = s.tokens;
    for (const TrainSpan& span : s.spans) {
      scored.spans.push_back({span.begin, span.length});
      for (uint32_t t = 0; t < span.length; ++t)
        out.rows.push_back(span.row + static_cast<int32_t>(t));
    }
  }
  return out;
}

std::vector<double> Doubles(const std::vector<float>& x) {
  return {x.begin(), x.end()};
}

std::vector<float> Floats(const std::vector<double>& x) {
  return {x.begin(), x.end()};
}

double Sum(const std::vector<float>& x) {
  return std::accumulate(x.begin(), x.end(), 0.0);
}

// What one pass over the step computes, contexts included.
double SequenceTokens(const StepData& data) {
  size_t tokens = 0;
  for (const TrainSequence& s : data.sequences) tokens += s.tokens.size();
  return static_cast<double>(tokens);
}

std::vector<int32_t> AllIndices(size_t n) {
  std::vector<int32_t> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<int32_t>(i);
  return out;
}

// Sum of |difference|, of the difference, and the largest |difference|.
struct Gap {
  double abs_sum = 0, sum = 0, abs_max = 0;
  int64_t count = 0;
  void Add(double x) {
    abs_sum += std::abs(x);
    sum += x;
    abs_max = std::max(abs_max, std::abs(x));
    ++count;
  }
  void PutMetrics(std::map<std::string, double>& metrics) const {
    if (count == 0) return;
    metrics["rollout/mismatch_kl"] = sum / count;
    metrics["rollout/mismatch_abs_mean"] = abs_sum / count;
    metrics["rollout/mismatch_abs_max"] = abs_max;
  }
};

}  // namespace

struct PolicyTrainer::Impl {
  PolicyTrainerOptions options;
  Recipe recipe;
  Communicator* communicator;
  DeviceBackend* device;
  std::unique_ptr<model::LanguageModel> student;
  std::unique_ptr<model::LanguageModel> reference;  // null unless a KL is on
  std::unique_ptr<AdamW> optimizer;

  // What one update adds up.
  struct UpdateSums {
    LossStats stats;
    double entropy = 0;
    Gap mismatch;  // against the rollout, before the first update
  };

  // Adds the gradient of the sequences `indices` of an update, whose tokens
  // weigh `weight`, [tokens of the batch].
  absl::Status Accumulate(const StepData& data, const Advantages& advantages,
                          const std::vector<double>& weight,
                          const std::vector<int32_t>& indices,
                          bool first_update, UpdateSums& sums) {
    const MicroBatch micro = MakeMicroBatch(data.sequences, indices);
    const bool report_entropy = !options.recompute_old;
    const bool use_entropy = recipe.aux.entropy_coef > 0;
    ATOD_ASSIGN_OR_RETURN(
        const model::ScoreOutput scored,
        student->ScoreForBackward(
            micro.sequences,
            {.temperature = static_cast<float>(data.temperature),
             .want_entropy = report_entropy || use_entropy}));
    const std::vector<double> current = Doubles(scored.logprobs);
    const std::vector<double> entropy =
        use_entropy ? Doubles(scored.entropy) : std::vector<double>();
    const LossGradient gradient =
        UpdateLoss(data.batch, advantages, recipe, weight,
                   {micro.rows, current, entropy}, &sums.stats);
    ATOD_RETURN_IF_ERROR(student->Backward(
        Floats(gradient.logprob),
        use_entropy ? Floats(gradient.entropy) : std::vector<float>()));
    if (report_entropy) sums.entropy += Sum(scored.entropy);
    if (report_entropy && first_update) {
      for (size_t i = 0; i < micro.rows.size(); ++i)
        sums.mismatch.Add(data.batch.rollout_logprob[micro.rows[i]] -
                          current[i]);
    }
    return absl::OkStatus();
  }

  // Log-probs of all batch rows that `sequences` have, [tokens].
  absl::StatusOr<std::vector<double>> Score(
      model::LanguageModel& model, const StepData& data,
      const std::vector<TrainSequence>& sequences, double* entropy) {
    std::vector<double> out(data.batch.num_tokens());
    double entropy_sum = 0;
    for (const std::vector<int32_t>& indices :
         PackMicroBatches(sequences, AllIndices(sequences.size()),
                          options.micro_batch_tokens)) {
      const MicroBatch micro = MakeMicroBatch(sequences, indices);
      ATOD_ASSIGN_OR_RETURN(
          const model::ScoreOutput scored,
          model.Score(micro.sequences,
                      {.temperature = static_cast<float>(data.temperature),
                       .want_entropy = entropy != nullptr}));
      for (size_t i = 0; i < micro.rows.size(); ++i)
        out[micro.rows[i]] = scored.logprobs[i];
      if (entropy != nullptr) entropy_sum += Sum(scored.entropy);
    }
    if (entropy != nullptr)
      *entropy = out.empty() ? 0 : entropy_sum / out.size();
    return out;
  }

  // The columns that only the learner can fill, and duplicated rows.
  absl::Status FillColumns(uint32_t step, StepData& data, double* entropy,
                           Gap* mismatch) {
    StepBatch& batch = data.batch;
    if (options.recompute_old) {
      ATOD_ASSIGN_OR_RETURN(batch.old_logprob,
                            Score(*student, data, data.sequences, entropy));
      for (size_t i = 0; i < batch.old_logprob.size(); ++i)
        mismatch->Add(batch.rollout_logprob[i] - batch.old_logprob[i]);
    } else {
      batch.old_logprob = batch.rollout_logprob;
    }
    if (recipe.needs_reference) {
      ATOD_ASSIGN_OR_RETURN(batch.reference_logprob,
                            Score(*reference, data, data.sequences, nullptr));
    }
    if (recipe.needs_context) {
      size_t rows = 0;
      for (const TrainSequence& s : data.context_sequences)
        for (const TrainSpan& span : s.spans) rows += span.length;
      if (rows != batch.old_logprob.size()) {
        return BadInput({.file = "step",
                         .field = "alternative contexts",
                         .found = absl::StrCat(rows, " tokens"),
                         .expected = absl::StrCat(batch.old_logprob.size(),
                                                  ", every sampled one")});
      }
      ATOD_ASSIGN_OR_RETURN(
          batch.context_logprob,
          Score(*student, data, data.context_sequences, nullptr));
    }
    DuplicateTurns(ChooseDuplicates(batch, recipe.duplicate_rows_to,
                                    options.seed, static_cast<int>(step)),
                   data);
    return absl::OkStatus();
  }

  // Moments, and the master copies of parameters that are not float32, by the
  // name they have in optimizer.safetensors.
  std::vector<std::pair<std::string, torch::Tensor>> OptimizerTensors() {
    std::vector<std::pair<std::string, torch::Tensor>> out;
    const model::ParameterArena& arena = student->arena();
    for (size_t i = 0; i < arena.specs().size(); ++i) {
      const std::string& name = arena.specs()[i].name;
      out.emplace_back("exp_avg." + name,
                       arena.View(optimizer->first_moments(), i));
      out.emplace_back("exp_avg_sq." + name,
                       arena.View(optimizer->second_moments(), i));
      if (!arena.masters.is_same(arena.values))
        out.emplace_back("master." + name, arena.View(arena.masters, i));
    }
    return out;
  }

  // Sums the gradients over the ranks.
  absl::Status ReduceGradients() {
    torch::Tensor& gradients = student->arena().gradients;
    return communicator->AllReduce(gradients.data_ptr(), gradients.numel(),
                                   ElementType::kFloat32, ReduceOp::kSum);
  }

  // False when the gradient is not finite and the update was left out.
  absl::StatusOr<bool> Update(double lr, double* norm) {
    ATOD_RETURN_IF_ERROR(ReduceGradients());
    *norm = ClipGradNorm(student->arena(), options.grad_clip);
    if (!std::isfinite(*norm)) return false;
    optimizer->Step(lr);
    ATOD_RETURN_IF_ERROR(student->ParametersChanged());
    return true;
  }
};

PolicyTrainer::PolicyTrainer(std::unique_ptr<Impl> impl)
    : impl_(std::move(impl)) {}
PolicyTrainer::~PolicyTrainer() = default;

absl::StatusOr<std::unique_ptr<PolicyTrainer>> PolicyTrainer::Load(
    const std::string& model_dir, const PolicyTrainerOptions& options,
    Communicator* communicator, DeviceBackend* device) {
  auto impl = std::make_unique<Impl>();
  impl->recipe = options.recipe;
  impl->options = options;
  impl->communicator = communicator;
  impl->device = device;
  model::OpenOptions open = {.dtype = options.dtype,
                             .device = options.model_device,
                             .deterministic = options.deterministic,
                             .gradients = true,
                             .max_context = 0};
  ATOD_ASSIGN_OR_RETURN(impl->student,
                        model::LanguageModel::Open(model_dir, open));
  if (impl->recipe.needs_reference) {
    open.gradients = false;
    ATOD_ASSIGN_OR_RETURN(impl->reference, model::LanguageModel::Open(
                                               options.reference_dir, open));
  }
  AdamWOptions adamw;
  adamw.beta1 = options.beta1;
  adamw.beta2 = options.beta2;
  adamw.weight_decay = options.weight_decay;
  impl->optimizer = std::make_unique<AdamW>(&impl->student->arena(), adamw);
  return std::unique_ptr<PolicyTrainer>(new PolicyTrainer(std::move(impl)));
}

absl::StatusOr<std::vector<double>> PolicyTrainer::Score(const StepData& data,
                                                         double* entropy) {
  return impl_->Score(*impl_->student, data, data.sequences, entropy);
}

absl::StatusOr<TrainedStep> PolicyTrainer::TrainStep(
    const StepSettings& settings, StepData& data) {
  Impl& impl = *impl_;
  const PolicyTrainerOptions& options = impl.options;
  StepBatch& batch = data.batch;
  TrainedStep out;
  RealClock clock;
  Stopwatch watch(&clock);
  double entropy = 0;
  Gap mismatch;
  ATOD_RETURN_IF_ERROR(
      impl.FillColumns(settings.step, data, &entropy, &mismatch));
  const double old_seconds = watch.Lap();
  ATOD_ASSIGN_OR_RETURN(out.advantages,
                        ComputeAdvantages(batch, impl.recipe,
                                          settings.coefficients, *impl.device));
  out.metrics = out.advantages.metrics;
  out.metrics["timing/old_logprob_seconds"] = old_seconds;
  out.metrics["timing/advantage_seconds"] = watch.Lap();

  out.updates =
      SplitUpdates(batch.num_trajectories(),
                   UpdatesOf(batch.num_turns(), options.updates_per_step,
                             options.turns_per_update),
                   options.seed, settings.step);
  Impl::UpdateSums sums;
  double norm_sum = 0;
  int skipped = 0;
  const int rank = impl.communicator->rank();
  const int ranks = impl.communicator->world_size();
  for (size_t u = 0; u < out.updates.size(); ++u) {
    const std::vector<double> weight =
        TokenLossWeights(batch, out.updates[u], impl.recipe.aggregation);
    std::vector<int32_t> chosen;
    for (size_t i = 0; i < data.sequences.size(); ++i) {
      if (std::binary_search(out.updates[u].begin(), out.updates[u].end(),
                             data.sequences[i].trajectory)) {
        chosen.push_back(static_cast<int32_t>(i));
      }
    }
    ATOD_RETURN_IF_ERROR(CatchTorch("update", [&]() -> absl::Status {
      impl.student->arena().gradients.zero_();
      const auto micro_batches =
          PackMicroBatches(data.sequences, chosen, options.micro_batch_tokens);
      for (size_t m = rank; m < micro_batches.size(); m += ranks) {
        ATOD_RETURN_IF_ERROR(impl.Accumulate(data, out.advantages, weight,
                                             micro_batches[m], u == 0, sums));
      }
      double norm = 0;
      ATOD_ASSIGN_OR_RETURN(const bool done, impl.Update(settings.lr, &norm));
      if (done) {
        norm_sum += norm;
      } else {
        ++skipped;
      }
      return absl::OkStatus();
    }));
  }
  out.metrics["timing/update_seconds"] = watch.Lap();

  const double updates = static_cast<double>(out.updates.size());
  const LossStats& stats = sums.stats;
  stats.PutMetrics(updates, impl.recipe.aux, out.metrics);
  if (stats.tokens > 0) {
    out.metrics["actor/entropy"] =
        options.recompute_old ? entropy : sums.entropy / stats.tokens;
  }
  if (updates > skipped)
    out.metrics["actor/grad_norm"] = norm_sum / (updates - skipped);
  out.metrics["actor/updates"] = updates;
  out.metrics["actor/sequence_tokens"] = SequenceTokens(data);
  out.metrics["actor/skipped_updates"] = skipped;
  out.metrics["actor/lr"] = settings.lr;
  (options.recompute_old ? mismatch : sums.mismatch).PutMetrics(out.metrics);
  return out;
}

absl::StatusOr<weights::WeightSnapshot> PolicyTrainer::Export() {
  return impl_->student->Export(impl_->options.dtype);
}

absl::Status PolicyTrainer::SaveModel(const std::string& dir) {
  return impl_->student->Save(dir, "float32");
}

absl::Status PolicyTrainer::SaveOptimizer(const std::string& path) {
  const auto tensors = impl_->OptimizerTensors();
  std::vector<TensorView> views;
  for (const auto& [name, tensor] : tensors)
    views.push_back({name, "F32", tensor.sizes().vec(), {}});
  torch::Tensor host;  // one at a time
  return WriteSafetensors(
      path, views, {{kUpdatesKey, absl::StrCat(impl_->optimizer->updates())}},
      [&](size_t i) {
        using Bytes = absl::Span<const std::byte>;
        return CatchTorch(
            "saving the optimiser", [&]() -> absl::StatusOr<Bytes> {
              host = tensors[i].second.to(torch::kCPU).contiguous();
              return Bytes(static_cast<const std::byte*>(host.data_ptr()),
                           host.nbytes());
            });
      });
}

absl::Status PolicyTrainer::LoadOptimizer(const std::string& path) {
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFile> file,
                        SafetensorsFile::Open(path));
  int64_t updates = 0;
  const auto meta = file->metadata().find(kUpdatesKey);
  if (meta == file->metadata().end() ||
      !absl::SimpleAtoi(meta->second, &updates) || updates < 0) {
    return BadInput(
        {.file = path,
         .field = absl::StrCat("__metadata__.", kUpdatesKey),
         .found = meta == file->metadata().end() ? "nothing" : meta->second,
         .expected = "the number of updates"});
  }
  std::map<std::string, const TensorView*> views;
  for (const TensorView& view : file->tensors()) views[view.name] = &view;
  return CatchTorch("loading the optimiser", [&]() -> absl::Status {
    const auto text = [](const std::vector<int64_t>& shape) {
      return absl::StrCat("[", absl::StrJoin(shape, ","), "]");
    };
    // Nothing changes before everything fits.
    std::vector<std::pair<torch::Tensor, const TensorView*>> plan;
    for (const auto& [name, tensor] : impl_->OptimizerTensors()) {
      const auto it = views.find(name);
      const std::vector<int64_t> shape = tensor.sizes().vec();
      if (it == views.end() || it->second->dtype != "F32" ||
          it->second->shape != shape) {
        return BadInput({.file = path,
                         .field = name,
                         .found = it == views.end()
                                      ? "no such tensor"
                                      : absl::StrCat(it->second->dtype, " ",
                                                     text(it->second->shape)),
                         .expected = "F32 " + text(shape)});
      }
      plan.emplace_back(tensor, it->second);
    }
    const torch::NoGradGuard no_grad;
    for (auto& [tensor, view] : plan) {
      // from_blob wants a mutable pointer; copy_ only reads it.
      tensor.copy_(torch::from_blob(const_cast<std::byte*>(view->data.data()),
                                    view->shape, torch::kFloat32));
    }
    impl_->optimizer->set_updates(updates);
    return impl_->student->ParametersChanged();
  });
}

const model::BackEnd& PolicyTrainer::back_end() const {
  return impl_->student->back_end();
}

uint32_t PolicyTrainer::vocab_size() const {
  return static_cast<uint32_t>(impl_->student->config().vocab_size);
}

std::string PolicyTrainer::arch_hash() const {
  return model::ArchHash(impl_->student->config());
}

}  // namespace atod::learner
