#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/collective/communicator.h"
#include "common/device/device.h"
#include "common/model/language_model.h"
#include "common/weights/snapshot.h"
#include "services/learner/algorithm/advantages.h"
#include "services/learner/algorithm/recipe.h"
#include "services/learner/step_data.h"
#include "services/learner/step_settings.h"

namespace atod::learner {

struct PolicyTrainerOptions {
  Recipe recipe;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double weight_decay = 0;
  double grad_clip = 1;  // largest gradient norm; 0: none
  uint32_t updates_per_step = 1;
  uint32_t turns_per_update = 0;  // over 0: updates follow from the turns
  uint32_t micro_batch_tokens = 8192;
  // pi_old is recomputed by the learner; false: the rollout's log-probs.
  bool recompute_old = true;
  uint64_t seed = 0;  // deals trajectories to updates, chooses duplicates
  std::string reference_dir;  // of the reference model, when a KL is on
  std::string dtype = "float32";
  std::string model_device = "cpu";  // as RunConfig.device
  bool deterministic = true;         // model::OpenOptions
};

struct TrainedStep {
  Advantages advantages;
  // Rows of the batch that entered each update.
  std::vector<std::vector<int32_t>> updates;
  // actor/*, rollout/*, hybrid/*, tdur/*, timing/* of the step.
  std::map<std::string, double> metrics;
};

// The student and its optimiser. One step is: old log-probs, advantages over
// the whole step, then its updates of gradient accumulation over
// micro-batches. Token weights belong to the update as a whole, so that neither
// the split into micro-batches nor the ranks change the loss. Gradients are
// summed over the communicator's ranks, which all make the same calls with the
// same data. Not thread-safe.
class PolicyTrainer {
 public:
  // Loads the Hugging Face folder `model_dir`. `communicator` and `device` are
  // not owned.
  static absl::StatusOr<std::unique_ptr<PolicyTrainer>> Load(
      const std::string& model_dir, const PolicyTrainerOptions& options,
      Communicator* communicator, DeviceBackend* device);
  ~PolicyTrainer();

  // Fills the learner's columns of data.batch and adds duplicated rows to it
  // when the recipe has them. An update whose gradient is not finite is skipped
  // (actor/skipped_updates).
  absl::StatusOr<TrainedStep> TrainStep(const StepSettings& settings,
                                        StepData& data);

  // Log-probs of all batch rows under the present weights, [tokens]; the mean
  // entropy in nats goes to `entropy` when it is not null.
  absl::StatusOr<std::vector<double>> Score(const StepData& data,
                                            double* entropy);

  // What rollouts play with.
  absl::StatusOr<weights::WeightSnapshot> Export();
  // config.json and model.safetensors in float32.
  absl::Status SaveModel(const std::string& dir);
  // Moments and update count of AdamW (safetensors, float32).
  absl::Status SaveOptimizer(const std::string& path);
  absl::Status LoadOptimizer(const std::string& path);

  const model::BackEnd& back_end() const;
  uint32_t vocab_size() const;
  std::string arch_hash() const;

 private:
  struct Impl;
  explicit PolicyTrainer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace atod::learner
